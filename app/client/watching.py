"""A progress bar for whoever waits for a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app import wire

Draw = Callable[["wire.tuning_jobs.TuningJobPublic | wire.evaluations.EvaluationPublic"], None]


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

        def draw(job: wire.tuning_jobs.TuningJobPublic | wire.evaluations.EvaluationPublic) -> None:
            said = job.progress
            title = job.name if isinstance(job, wire.tuning_jobs.TuningJobPublic) else "evaluation"
            phase = str(said.get("phase", job.status))
            if "steps" not in said:  # it cannot be counted; `update` takes None for "as it was"
                bar.tasks[0].total = None
            bar.update(task, description=f"{title}: {phase}", completed=said.get("step", 0), total=said.get("steps"))

        yield draw
