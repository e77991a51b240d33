"""Tunings and evaluations. Service and trainer meet here and nowhere else; every change of status is told in
`job_events`. Who works on jobs takes either kind; who asks for one of a kind does not find the other.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, func, insert, or_, select, update

from app.errors import Conflict, EvaluationNotFound, JobFinished, JobNotFound, JobNotResumable
from app.registry.audit import Action, record
from app.registry.clock import now
from app.registry.database import Database
from app.registry.encoders import EncoderState
from app.registry.events import EventKind, append
from app.registry.job_records import (
    AT_TRAINER,
    AT_WORK,
    ENDED_FOR_GOOD,
    FINISHED,
    MAX_ATTEMPTS,
    AnyJob,
    EvaluationRecord,
    JobKind,
    JobRecord,
    JobStatus,
    NewEvaluation,
    NewJob,
)
from app.registry.tables import datasets, encoders, tuning_jobs

IDLE = (JobStatus.QUEUED, JobStatus.PREPARED, JobStatus.INTERRUPTED)  # nobody works on it
STOPPABLE = (JobStatus.PREPARING, *AT_TRAINER)  # somebody does, and looks for a cancel
# What the table wants of an evaluation and only a tuning has.
NO_TUNING: dict[str, Any] = {"name": "", "dataset": "", "guards": [], "recipe": {}, "gate": {}, "activate": ""}
CANCELLED_IDLE = "cancelled while nobody worked on it"
HANDED_ON = "its trainer is being stopped; another one goes on from the last checkpoint"
STARTED = {JobKind.TUNING: Action.TUNING_STARTED, JobKind.EVALUATION: Action.EVALUATION_STARTED}
RESUMED = {JobKind.TUNING: Action.TUNING_RESUMED, JobKind.EVALUATION: Action.EVALUATION_RESUMED}
CANCELLED = {JobKind.TUNING: Action.TUNING_CANCELLED, JobKind.EVALUATION: Action.EVALUATION_CANCELLED}
OF_A_JOB = frozenset(field.name for field in fields(JobRecord))
OF_AN_EVALUATION = frozenset(field.name for field in fields(EvaluationRecord))

Job = TypeVar("Job", JobRecord, EvaluationRecord)


class Jobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: NewJob, also: Callable[[Connection, JobRecord], None] | None = None) -> JobRecord:
        """Queue it; `also` is done in the same transaction.

        Raises `Conflict` when a dataset changed since its digest was read, or the parent went: both may be gone.
        """
        values = {field: getattr(new, field) for field in NewJob.__slots__} | {"kind": JobKind.TUNING}
        return self._add(values, [new.parent_id], _tuning, also)

    def add_evaluation(
        self, new: NewEvaluation, also: Callable[[Connection, EvaluationRecord], None] | None = None
    ) -> EvaluationRecord:
        """As `add`; none of its encoders may have gone."""
        said = {"encoder_ids": new.encoder_ids, "datasets": new.datasets, "reads_store": new.reads_store}
        said |= {"replay": new.replay}
        values = NO_TUNING | {"kind": JobKind.EVALUATION, "parent_id": new.encoder_ids[0], "evaluation": said}
        values |= {"dataset_digests": new.dataset_digests}
        return self._add(values, new.encoder_ids, _evaluation, also)

    def _add(
        self,
        values: dict[str, Any],
        encoder_ids: Sequence[int],
        read: Callable[[Row[Any]], Job],
        also: Callable[[Connection, Job], None] | None,
    ) -> Job:
        queued = {"id": uuid.uuid4().hex, "status": JobStatus.QUEUED, "progress": {}, "created_at": now()}
        with self._database.write() as connection:
            _require_datasets(connection, values["dataset_digests"])
            _require_encoders(connection, encoder_ids)
            row = connection.execute(insert(tuning_jobs).values(values | queued).returning(*tuning_jobs.c)).one()
            _tell(connection, row.id, JobStatus.QUEUED)
            _audit(connection, row, STARTED)
            job = read(row)
            if also is not None:
                also(connection, job)
            return job

    def get(self, job_id: str) -> JobRecord:
        """A tuning. Raises `JobNotFound`."""
        row = self._row(job_id)
        if row is None or row.kind != JobKind.TUNING:
            raise JobNotFound(f"No tuning job has the id {job_id!r}; GET /tuning-jobs lists them.")
        return _tuning(row)

    def evaluation(self, job_id: str) -> EvaluationRecord:
        """Raises `EvaluationNotFound`."""
        row = self._row(job_id)
        if row is None or row.kind != JobKind.EVALUATION:
            raise EvaluationNotFound(f"No evaluation has the id {job_id!r}; GET /evaluations lists them.")
        return _evaluation(row)

    def find(self, job_id: str) -> AnyJob:
        """Of either kind. Raises `JobNotFound`."""
        if (row := self._row(job_id)) is None:
            raise JobNotFound(f"No job has the id {job_id!r}.")
        return _record(row)

    def _row(self, job_id: str) -> Row[Any] | None:
        with self._database.read() as connection:
            return connection.execute(select(tuning_jobs).where(tuning_jobs.c.id == job_id)).one_or_none()

    def all(self, limit: int | None = None, offset: int = 0) -> list[JobRecord]:
        """The tunings, newest first."""
        return [_tuning(row) for row in self._of_kind(JobKind.TUNING, limit, offset)]

    def evaluations(self, limit: int | None = None, offset: int = 0) -> list[EvaluationRecord]:
        """Newest first."""
        return [_evaluation(row) for row in self._of_kind(JobKind.EVALUATION, limit, offset)]

    def _of_kind(self, kind: JobKind, limit: int | None, offset: int) -> Sequence[Row[Any]]:
        with self._database.read() as connection:
            query = select(tuning_jobs).where(tuning_jobs.c.kind == kind)
            query = query.order_by(tuning_jobs.c.created_at.desc()).limit(limit).offset(offset)
            return connection.execute(query).all()

    def with_status(self, *statuses: JobStatus) -> list[AnyJob]:
        """Oldest first, of either kind."""
        with self._database.read() as connection:
            query = select(tuning_jobs).where(tuning_jobs.c.status.in_(statuses)).order_by(tuning_jobs.c.created_at)
            return [_record(row) for row in connection.execute(query)]

    def counts(self) -> dict[str, int]:
        """How many tunings have each status; a status that none has is absent."""
        of_kind = tuning_jobs.c.kind == JobKind.TUNING
        with self._database.read() as connection:
            query = select(tuning_jobs.c.status, func.count()).where(of_kind).group_by(tuning_jobs.c.status)
            return {row[0]: row[1] for row in connection.execute(query)}

    def claim(self, worker: str) -> AnyJob | None:
        """Take the oldest prepared job, of either kind, for `worker`, or None. Two workers can never take the same.

        A worker that may come back under the same name calls itself "name/token", so that its word and the word of
        the one before it are told apart.
        """
        with self._database.write(shared=True) as connection:
            query = select(tuning_jobs.c.id).where(tuning_jobs.c.status == JobStatus.PREPARED)
            query = query.order_by(tuning_jobs.c.created_at).limit(1).with_for_update(skip_locked=True)
            if (job_id := connection.scalar(query)) is None:
                return None
            row = connection.execute(
                update(tuning_jobs)
                .where(tuning_jobs.c.id == job_id)
                .values(
                    status=JobStatus.RUNNING,
                    worker=worker,
                    started_at=now(),
                    heartbeat_at=now(),
                    attempts=tuning_jobs.c.attempts + 1,
                )
                .returning(*tuning_jobs.c)
            ).one()
            _tell(connection, job_id, JobStatus.RUNNING)
            return _record(row)

    def move(
        self,
        job_id: str,
        to: JobStatus,
        *,
        only_from: tuple[JobStatus, ...],
        held_by: str | None = None,
        told: dict[str, Any] | None = None,
        audited: Mapping[JobKind, Action] | None = None,
        **values: Any,
    ) -> bool:
        """Change the status if it is one of `only_from`; False when somebody (a cancel) was faster.

        `held_by` makes it the word of that worker, which does not count once another one has the job.
        `told` goes into the event beside status and reason, `audited` names the entry of the audit log by kind.
        """
        if to in FINISHED:
            values["finished_at"] = now()
        conditions = [tuning_jobs.c.id == job_id, tuning_jobs.c.status.in_(only_from)]
        if held_by is not None:
            conditions.append(tuning_jobs.c.worker == held_by)
        with self._database.write(shared=True) as connection:
            return _moved(connection, conditions, to, values, told, audited)

    @staticmethod
    def is_held(connection: Connection, job: AnyJob) -> bool:
        """Whether the job is still at the worker that claimed it as `job`, and nobody asked for its end.

        It stays so until the transaction of `connection` ends: whoever lost the job publishes nothing.
        """
        query = select(tuning_jobs.c.status, tuning_jobs.c.worker).where(tuning_jobs.c.id == job.id).with_for_update()
        status, worker = connection.execute(query).one()
        return worker == job.worker and status in AT_WORK

    @staticmethod
    def finish(
        connection: Connection, job: AnyJob, status: JobStatus, told: dict[str, Any] | None = None, **values: Any
    ) -> None:
        """The end of a job that `is_held`, in the transaction that makes what came of it."""
        values["finished_at"] = now()
        _moved(connection, [tuning_jobs.c.id == job.id], status, values, told)

    def hand_on(self, job: AnyJob) -> bool:
        """Queue a job that its trainer, which is being stopped, leaves to the next one; False where it has lost it.

        It was no fault of the job's: this take does not count among its attempts.
        """
        return self.move(
            job.id,
            JobStatus.PREPARED,
            only_from=AT_WORK,
            held_by=job.worker,
            told={"reason": HANDED_ON},
            worker=None,
            progress={},
            attempts=job.attempts - 1,
        )

    def send_back(self, job: AnyJob, reason: str) -> bool:
        """Queue a job to be prepared again, as its trainer could not use what was prepared; False where it lost it.

        The take counts: what is damaged again and again ends it.
        """
        return self.move(
            job.id,
            JobStatus.QUEUED,
            only_from=AT_WORK,
            held_by=job.worker,
            told={"reason": reason},
            worker=None,
            progress={},
        )

    def settle_activation(self, job_id: str, outcome: str) -> None:
        """Record that the activation this job asked for was done, or failed: it is tried once."""
        with self._database.write() as connection:
            connection.execute(update(tuning_jobs).where(tuning_jobs.c.id == job_id).values(activation=outcome))

    def report(self, job_id: str, progress: dict[str, Any], *, held_by: str) -> JobStatus | None:
        """Store progress, refresh the heartbeat, and tell the caller the status (a cancel shows here).

        None when the job is not this worker's any more: it was silent too long and another one has it. Of a job that
        is not at a trainer nothing is written: its end stays its last event.
        """
        mine = (tuning_jobs.c.id == job_id, tuning_jobs.c.worker == held_by)
        query = select(tuning_jobs.c.status, tuning_jobs.c.progress).where(*mine).with_for_update()
        with self._database.write(shared=True) as connection:
            before = connection.execute(query).one_or_none()
            if before is None:
                return None
            if before.status not in AT_TRAINER:
                return JobStatus(before.status)
            connection.execute(update(tuning_jobs).where(*mine).values(progress=progress, heartbeat_at=now()))
            if progress and progress != before.progress:
                append(connection, job_id, EventKind.PROGRESS, progress)
            return JobStatus(before.status)

    def cancel(self, job_id: str) -> AnyJob:
        """Ask a job to stop: at once where nothing runs, else through `cancelling`. Raises `JobFinished`.

        An interrupted job is given up for good, and its files with it.
        """
        while not (
            self.move(job_id, JobStatus.CANCELLED, only_from=IDLE, reason=CANCELLED_IDLE, audited=CANCELLED)
            or self.move(job_id, JobStatus.CANCELLING, only_from=STOPPABLE, audited=CANCELLED)
        ):  # it may have gone from the one to the other between the two looks
            if (job := self.find(job_id)).status in ENDED_FOR_GOOD:
                raise JobFinished(f"The job {job_id} has already ended: {job.status}.")
        return self.find(job_id)

    def resume(self, job_id: str) -> AnyJob:
        """Put an interrupted job back into the queue. Raises `JobNotResumable` for any other."""
        fresh: dict[str, Any] = {"attempts": 0, "reason": None, "worker": None, "finished_at": None, "progress": {}}
        if not self.move(job_id, JobStatus.QUEUED, only_from=(JobStatus.INTERRUPTED,), audited=RESUMED, **fresh):
            job = self.find(job_id)
            mend = "start another with the same body" if job.finished else "it needs no resume"
            raise JobNotResumable(f"Only an interrupted job can be resumed; {job_id} is {job.status.shown}: {mend}.")
        return self.find(job_id)

    def end_cancelled_before_work(self) -> None:
        """Jobs whose cancel came while they were prepared; no trainer has them."""
        for job in self.with_status(JobStatus.CANCELLING):
            if job.worker is None:
                reason = "cancelled before it started"
                self.move(job.id, JobStatus.CANCELLED, only_from=(JobStatus.CANCELLING,), reason=reason)

    def interrupt(self, *, worker: str | None = None, silent: AnyJob | None = None, hand_on: bool = False) -> list[str]:
        """Take jobs from a dead trainer: those of `worker`, whatever its token, or the one that still is as `silent`.

        They are interrupted, or with `hand_on` queued for the next trainer, unless they have been through too many.
        One that was to be cancelled is cancelled.
        """
        conditions: list[ColumnElement[bool]] = [tuning_jobs.c.status.in_(AT_TRAINER)]
        if worker is not None:
            of_it = tuning_jobs.c.worker.startswith(f"{worker}/", autoescape=True)
            conditions.append(or_(tuning_jobs.c.worker == worker, of_it))
        if silent is not None:
            still = {"id": silent.id, "worker": silent.worker, "heartbeat_at": silent.heartbeat_at}
            conditions += [tuning_jobs.c[name] == value for name, value in still.items()]
        if not self.with_status(*AT_TRAINER):  # a look is cheaper than a write lock, twice a second
            return []
        with self._database.write() as connection:
            query = select(tuning_jobs).where(*conditions).with_for_update()
            silenced = [_record(row) for row in connection.execute(query)]
            for job in silenced:
                status, values = _after_silence(job, hand_on=hand_on)
                _moved(connection, [tuning_jobs.c.id == job.id], status, values)
            return [job.id for job in silenced]

    def uses_encoder(self, encoder_id: int) -> list[AnyJob]:
        """Unfinished tunings that were started from this encoder, and unfinished evaluations that measure it."""
        unfinished = self.with_status(*(status for status in JobStatus if status not in FINISHED))
        return [job for job in unfinished if encoder_id in _encoder_ids(job)]


def _encoder_ids(job: AnyJob) -> list[int]:
    return job.encoder_ids if isinstance(job, EvaluationRecord) else [job.parent_id]


def _after_silence(job: AnyJob, *, hand_on: bool) -> tuple[JobStatus, dict[str, Any]]:
    """What becomes of a job whose trainer is gone, and the columns that say so."""
    if job.status is JobStatus.CANCELLING:
        return JobStatus.CANCELLED, {"reason": "cancelled while it ran", "finished_at": now()}
    if hand_on and job.attempts < MAX_ATTEMPTS:
        return JobStatus.PREPARED, {"worker": None, "progress": {}}
    said = "the trainer stopped before the job ended"
    if hand_on:
        said = f"{job.attempts} trainers in a row stopped at this job; look at their logs before you go on"
    return JobStatus.INTERRUPTED, {"reason": f"{said}; {job.how_to_resume}", "finished_at": now()}


def _moved(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    to: JobStatus,
    values: dict[str, Any],
    told: dict[str, Any] | None = None,
    audited: Mapping[JobKind, Action] | None = None,
) -> bool:
    """One job at most: `conditions` name it."""
    change = update(tuning_jobs).where(*conditions).values(status=to, **values).returning(*tuning_jobs.c)
    row = connection.execute(change).one_or_none()
    if row is not None:
        _tell(connection, row.id, to, values.get("reason"), told)
        if audited is not None:
            _audit(connection, row, audited)
    return row is not None


def _tell(
    connection: Connection, job_id: str, to: JobStatus, reason: str | None = None, told: dict[str, Any] | None = None
) -> None:
    said = {"status": to.shown} | ({"reason": reason} if reason else {}) | (told or {})
    append(connection, job_id, EventKind.END if to in FINISHED else EventKind.STATUS, said)


def _audit(connection: Connection, row: Row[Any], actions: Mapping[JobKind, Action]) -> None:
    of_tuning = {"name": row.name, "activate": row.activate} if row.kind == JobKind.TUNING else {}
    record(connection, actions[JobKind(row.kind)], row.id, **of_tuning)


def _require_datasets(connection: Connection, digests: dict[str, str]) -> None:
    """Asked within the job's own transaction: from its commit on, the content is kept for the job."""
    recorded = {row.name: row.digest for row in connection.execute(select(datasets.c.name, datasets.c.digest))}
    for name, digest in digests.items():
        if recorded.get(name) != digest:
            raise Conflict(f"The dataset {name!r} was replaced or deleted while the job was made; repeat the call.")


def _require_encoders(connection: Connection, encoder_ids: Sequence[int]) -> None:
    """Asked within the job's own transaction: from its commit on, the job keeps these from being deleted."""
    query = select(encoders.c.name, encoders.c.version, encoders.c.state).where(encoders.c.id.in_(encoder_ids))
    for name, version, state in connection.execute(query):
        if state in (EncoderState.DELETED, EncoderState.BROKEN):
            raise Conflict(f"The encoder {name}@{version} became {state} while the job was made; name another.")


def _record(row: Row[Any]) -> AnyJob:
    return _evaluation(row) if row.kind == JobKind.EVALUATION else _tuning(row)


def _tuning(row: Row[Any]) -> JobRecord:
    values = {name: value for name, value in row._asdict().items() if name in OF_A_JOB}
    return JobRecord(**values | {"status": JobStatus(row.status)})


def _evaluation(row: Row[Any]) -> EvaluationRecord:
    values = {name: value for name, value in row._asdict().items() if name in OF_AN_EVALUATION}
    return EvaluationRecord(**values | row.evaluation | {"status": JobStatus(row.status)})
