"""A progress bar for whoever waits for a job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.wire.evaluations import EvaluationPublic
from app.wire.tuning_jobs import TuningJobPublic

Draw = Callable[[TuningJobPublic | EvaluationPublic], None]


@contextmanager
def job_bar(shown: bool) -> Iterator[Draw]:
    """Draws on standard error, if `shown`; yields what to call with each look at the job."""
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("queued", total=None)

        def draw(job: TuningJobPublic | EvaluationPublic) -> None:
            said = job.progress
            title = job.name if isinstance(job, TuningJobPublic) else "evaluation"
            phase = str(said.get("phase", job.status))
            bar.update(task, description=f"{title}: {phase}", completed=said.get("step", 0), total=said.get("steps"))

        yield draw
