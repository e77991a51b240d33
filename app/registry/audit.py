"""The audit log: who changed what, from where, and what came of it. Append-only.

Who acts is bound to the context (`acting`) by whoever knows, and every change writes its entry in its own transaction
(`record`): there is no change without an entry and no entry without a change.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select

from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import audit

MAX_TARGET_CHARS = 512  # an id of a passage


class Action(StrEnum):
    ENCODER_REGISTERED = "encoder-registered"
    ENCODER_DELETED = "encoder-deleted"
    SWITCHED = "switched"  # to another encoder, or taken up at the first start
    ROLLED_BACK = "rolled-back"
    ROUTE_SET = "route-set"
    ROUTE_REMOVED = "route-removed"
    PASSAGES_DELETED = "passages-deleted"
    DATASET_PUT = "dataset-put"
    DATASET_DELETED = "dataset-deleted"
    TUNING_STARTED = "tuning-started"
    TUNING_RESUMED = "tuning-resumed"
    TUNING_CANCELLED = "tuning-cancelled"
    EVALUATION_STARTED = "evaluation-started"
    EVALUATION_RESUMED = "evaluation-resumed"
    EVALUATION_CANCELLED = "evaluation-cancelled"
    CONTINUOUS_TUNING_SET = "continuous-tuning-set"
    CONTINUOUS_TUNING_REMOVED = "continuous-tuning-removed"
    KEY_MADE = "key-made"
    KEY_REVOKED = "key-revoked"
    BACKED_UP = "backed-up"  # whoever has the file has all that is in it
    REFUSED = "refused"  # an attempt to change something


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Whose request it is. `key` is None where the service asks for none, or acts by itself: `detail` may say why."""

    key: str | None = None
    peer: str | None = None
    request_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    sequence: int
    at: float
    action: str
    key: str | None
    peer: str | None
    target: str
    outcome: str  # "done", "forced", or the slug of a refusal
    generation: int | None
    detail: dict[str, Any]
    request_id: str | None


_acting: ContextVar[Actor | None] = ContextVar("adiabat_actor", default=None)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """What is recorded in this block, threads that work for it included, is `actor`'s doing."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def actor() -> Actor:
    """Whoever acts in this context."""
    return _acting.get() or Actor()


def record(
    connection: Connection,
    action: Action,
    target: str,
    *,
    outcome: str = "done",
    generation: int | None = None,
    **detail: Any,
) -> None:
    """Write an entry in the transaction of `connection`."""
    by = actor()
    connection.execute(
        insert(audit).values(
            at=now(),
            action=action,
            key=by.key,
            peer=by.peer,
            target=target[:MAX_TARGET_CHARS],
            outcome=outcome,
            generation=generation,
            detail={**detail, **by.detail},
            request_id=by.request_id,
        )
    )


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, action: Action, target: str, *, outcome: str = "done", **detail: Any) -> None:
        """An entry of its own, for what the registry does not do itself."""
        with self._database.write() as connection:
            record(connection, action, target, outcome=outcome, **detail)

    def page(
        self, limit: int, *, before: int | None = None, action: Action | None = None, key: str | None = None
    ) -> list[Entry]:
        """Newest first, those older than the sequence `before`, of one action or key or of all."""
        wanted = [audit.c.sequence < before] if before is not None else []
        wanted += [column == value for column, value in ((audit.c.action, action), (audit.c.key, key)) if value]
        found = select(audit).where(*wanted).order_by(audit.c.sequence.desc()).limit(limit)
        with self._database.read() as connection:
            return [Entry(**row._asdict()) for row in connection.execute(found)]
