"""What happened to each tuning job, in order: rows are added and never changed.

A change of status and the row that tells of it are one transaction, so whoever replays the rows sees every one.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, insert, select

from app.registry.clock import now
from app.registry.database import Database
from app.registry.job_records import FINISHED
from app.registry.tables import job_events, tuning_jobs


class EventKind(StrEnum):
    STATUS = "status"  # the job went on to another status
    PROGRESS = "progress"  # phase, step, steps, eta_s, loss: at most one a second
    MEASURED = "measured"  # MRR@10 of dev and guards, before the tuning or after it
    LOG = "log"  # a sentence for people
    END = "end"  # the job ended; only a resumed job has rows after it


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEvent:
    job_id: str
    sequence: int  # counts from 1 within the job, without gaps
    at: float
    kind: EventKind
    data: dict[str, Any]


class JobEvents:
    def __init__(self, database: Database) -> None:
        self._database = database

    def tell(self, job_id: str, kind: EventKind, *, held_by: str | None = None, **data: Any) -> None:
        """Nothing is told of a job that has ended: followers stop at its end.

        With `held_by` it is the word of that worker, and nothing is told once another one has the job.
        """
        query = select(tuning_jobs.c.status, tuning_jobs.c.worker).where(tuning_jobs.c.id == job_id).with_for_update()
        with self._database.write(shared=True) as connection:
            status, worker = connection.execute(query).one()
            if status not in FINISHED and held_by in (None, worker):
                append(connection, job_id, kind, data)

    def after(self, job_id: str, sequence: int, limit: int) -> list[JobEvent]:
        """Up to `limit` events that follow number `sequence`, oldest first."""
        query = select(job_events).where(job_events.c.job_id == job_id, job_events.c.sequence > sequence)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(job_events.c.sequence).limit(limit))
            return [JobEvent(**row._asdict() | {"kind": EventKind(row.kind)}) for row in rows]


def append(connection: Connection, job_id: str, kind: EventKind, data: dict[str, Any]) -> None:
    """Add the job's next event within the caller's transaction, which has written or locked the job's row: nobody else
    counts meanwhile."""
    newest = connection.scalar(select(func.max(job_events.c.sequence)).where(job_events.c.job_id == job_id))
    row = {"job_id": job_id, "sequence": (newest or 0) + 1, "at": now(), "kind": kind, "data": data}
    connection.execute(insert(job_events).values(row))
