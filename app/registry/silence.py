"""Which trainers have gone silent at a job, by what the looker has itself seen.

A lease runs out when a job's sign of life has not changed for so long on the looker's own monotonic clock: clocks that
differ, are set, or stood still while a machine slept, take no job away from anybody.
"""

import time

from app.registry.job_records import AT_TRAINER, AnyJob
from app.registry.jobs import Jobs


class Silence:
    """One to a looker, who looks again and again."""

    def __init__(self, jobs: Jobs, lease_s: float) -> None:
        self._jobs = jobs
        self._lease_s = lease_s
        self._seen: dict[str, tuple[float, tuple[str, float | None]]] = {}  # by job, since when it is the same

    def look(self) -> list[AnyJob]:
        """Jobs whose lease has run out."""
        now, before = time.monotonic(), self._seen
        self._seen, silent = {}, []
        for job in self._jobs.with_status(*AT_TRAINER):
            if job.worker is None:
                continue  # cancelled while it was prepared: no trainer has it
            since, beat = before.get(job.id, (now, None))
            if beat != (job.worker, job.heartbeat_at):
                since = now
            self._seen[job.id] = since, (job.worker, job.heartbeat_at)
            if now - since >= self._lease_s:
                silent.append(job)
        return silent
