"""A progress bar for whoever waits for a tuning job."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.client.common import OnProgress
from app.wire.tuning_jobs import TuningJobPublic


@contextmanager
def job_bar(shown: bool) -> Iterator[OnProgress]:
    """Draws on standard error, if `shown`; yields what to call with each look at the job."""
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("queued", total=None)

        def draw(job: TuningJobPublic) -> None:
            said = job.progress
            phase = str(said.get("phase", job.status))
            bar.update(task, description=f"{job.name}: {phase}", completed=said.get("step", 0), total=said.get("steps"))

        yield draw
