"""Tuning jobs and the workers that take them. Service and trainer meet here and nowhere else."""

import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update

from app.errors import JobFinished, JobNotFound
from app.registry.database import Database
from app.registry.tables import tuning_jobs, workers


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for the service to prepare its training set
    PREPARING = "preparing"  # the service is writing the training set
    PREPARED = "prepared"  # waits for a trainer (shown to clients as queued)
    RUNNING = "running"  # a trainer tunes
    EVALUATING = "evaluating"  # a trainer measures dev and guards
    SUCCEEDED = "succeeded"  # published and registered
    REJECTED = "rejected"  # registered, but the gate said no
    FAILED = "failed"  # ended by an error; `reason` says which
    CANCELLING = "cancelling"  # asked to stop, not yet stopped
    CANCELLED = "cancelled"  # stopped because somebody asked
    INTERRUPTED = "interrupted"  # its trainer died


FINISHED = frozenset(
    {JobStatus.SUCCEEDED, JobStatus.REJECTED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.INTERRUPTED}
)
AT_TRAINER = (JobStatus.RUNNING, JobStatus.EVALUATING, JobStatus.CANCELLING)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    id: str
    name: str
    parent_id: int
    dataset: str
    guards: list[str]
    dataset_digests: dict[str, str]
    recipe: dict[str, Any]
    gate: dict[str, Any]
    activate: str
    activation: str | None  # what came of `activate`, once it was tried
    status: JobStatus
    progress: dict[str, Any]
    result: dict[str, Any] | None
    reason: str | None
    encoder_id: int | None
    worker: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    heartbeat_at: float | None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob:
    name: str
    parent_id: int
    dataset: str
    guards: list[str]
    dataset_digests: dict[str, str]
    recipe: dict[str, Any]
    gate: dict[str, Any]
    activate: str


class Jobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: NewJob) -> JobRecord:
        values = {field: getattr(new, field) for field in NewJob.__slots__}
        with self._database.write() as connection:
            row = connection.execute(
                insert(tuning_jobs)
                .values(
                    id=uuid.uuid4().hex,
                    **values,
                    status=JobStatus.QUEUED,
                    progress={},
                    created_at=time.time(),
                )
                .returning(*tuning_jobs.c)
            ).one()
            return _record(row)

    def get(self, job_id: str) -> JobRecord:
        with self._database.read() as connection:
            row = connection.execute(select(tuning_jobs).where(tuning_jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise JobNotFound(f"No tuning job has the id {job_id!r}; GET /tuning-jobs lists them.")
        return _record(row)

    def all(self) -> list[JobRecord]:
        """Newest first."""
        with self._database.read() as connection:
            query = select(tuning_jobs).order_by(tuning_jobs.c.created_at.desc())
            return [_record(row) for row in connection.execute(query)]

    def with_status(self, *statuses: JobStatus) -> list[JobRecord]:
        """Oldest first."""
        with self._database.read() as connection:
            query = select(tuning_jobs).where(tuning_jobs.c.status.in_(statuses)).order_by(tuning_jobs.c.created_at)
            return [_record(row) for row in connection.execute(query)]

    def claim(self, worker: str) -> JobRecord | None:
        """Take the oldest prepared job for `worker`, or None. Two workers can never take the same."""
        with self._database.write() as connection:
            query = select(tuning_jobs.c.id).where(tuning_jobs.c.status == JobStatus.PREPARED)
            job_id = connection.scalar(query.order_by(tuning_jobs.c.created_at).limit(1))
            if job_id is None:
                return None
            now = time.time()
            row = connection.execute(
                update(tuning_jobs)
                .where(tuning_jobs.c.id == job_id)
                .values(status=JobStatus.RUNNING, worker=worker, started_at=now, heartbeat_at=now)
                .returning(*tuning_jobs.c)
            ).one()
            return _record(row)

    def move(self, job_id: str, to: JobStatus, *, only_from: tuple[JobStatus, ...], **values: Any) -> bool:
        """Change the status if it is one of `only_from`; False when somebody (a cancel) was faster."""
        if to in FINISHED:
            values["finished_at"] = time.time()
        with self._database.write() as connection:
            changed = connection.execute(
                update(tuning_jobs)
                .where(tuning_jobs.c.id == job_id, tuning_jobs.c.status.in_(only_from))
                .values(status=to, **values)
            )
            return changed.rowcount == 1

    def settle_activation(self, job_id: str, outcome: str) -> None:
        """Record that the activation this job asked for was done, or failed: it is tried once."""
        with self._database.write() as connection:
            connection.execute(update(tuning_jobs).where(tuning_jobs.c.id == job_id).values(activation=outcome))

    def report(self, job_id: str, progress: dict[str, Any]) -> JobStatus:
        """Store progress, refresh the heartbeat, and tell the caller the status (a cancel shows here)."""
        with self._database.write() as connection:
            status = connection.execute(
                update(tuning_jobs)
                .where(tuning_jobs.c.id == job_id)
                .values(progress=progress, heartbeat_at=time.time())
                .returning(tuning_jobs.c.status)
            ).scalar_one()
            return JobStatus(status)

    def cancel(self, job_id: str) -> JobRecord:
        """Ask a job to stop: at once where nothing runs, else through `cancelling`. Raises `JobFinished`."""
        waiting = (JobStatus.QUEUED, JobStatus.PREPARED)
        if not self.move(job_id, JobStatus.CANCELLED, only_from=waiting, reason="cancelled before it started") and not (
            self.move(
                job_id,
                JobStatus.CANCELLING,
                only_from=(
                    JobStatus.PREPARING,
                    JobStatus.RUNNING,
                    JobStatus.EVALUATING,
                    JobStatus.CANCELLING,
                ),
            )
        ):
            job = self.get(job_id)
            raise JobFinished(f"The job {job_id} has already ended: {job.status}.")
        return self.get(job_id)

    def end_cancelled_before_work(self) -> None:
        """Jobs whose cancel came while they were prepared; no trainer has them."""
        waiting = (tuning_jobs.c.status == JobStatus.CANCELLING, tuning_jobs.c.worker.is_(None))
        values = {
            "status": JobStatus.CANCELLED,
            "reason": "cancelled before it started",
            "finished_at": time.time(),
        }
        if self.with_status(JobStatus.CANCELLING):  # a look is cheaper than a write lock, twice a second
            with self._database.write() as connection:
                connection.execute(update(tuning_jobs).where(*waiting).values(**values))

    def interrupt(self, *, worker: str | None = None, silent_for_s: float | None = None) -> list[str]:
        """Mark jobs at a dead trainer: those of `worker`, or those silent for `silent_for_s` seconds."""
        conditions: list[ColumnElement[bool]] = [tuning_jobs.c.status.in_(AT_TRAINER)]
        if worker is not None:
            conditions.append(tuning_jobs.c.worker == worker)
        if silent_for_s is not None:
            conditions.append(tuning_jobs.c.heartbeat_at < time.time() - silent_for_s)
        if not self.with_status(*AT_TRAINER):
            return []
        with self._database.write() as connection:
            rows = connection.execute(
                update(tuning_jobs)
                .where(*conditions)
                .values(
                    status=JobStatus.INTERRUPTED,
                    reason="the trainer stopped before the job ended; start it again with the same body",
                    finished_at=time.time(),
                )
                .returning(tuning_jobs.c.id)
            )
            return [row.id for row in rows]

    def uses_encoder(self, encoder_id: int) -> list[str]:
        """Ids of unfinished jobs that were started from this encoder."""
        unfinished = tuning_jobs.c.status.not_in([status.value for status in FINISHED])
        with self._database.read() as connection:
            query = select(tuning_jobs.c.id).where(unfinished, tuning_jobs.c.parent_id == encoder_id)
            return list(connection.scalars(query))


class Workers:
    """Who is alive among the trainers, by the heartbeats they write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, name: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))
            connection.execute(insert(workers).values(name=name, seen_at=time.time()))

    def leave(self, name: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))

    def ages_s(self) -> dict[str, float]:
        """Seconds since each worker was last seen."""
        now = time.time()
        with self._database.read() as connection:
            return {row.name: now - row.seen_at for row in connection.execute(select(workers))}


def _record(row: Row[Any]) -> JobRecord:
    fields = row._asdict()
    fields["status"] = JobStatus(fields["status"])
    return JobRecord(**fields)
