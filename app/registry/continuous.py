"""The standing order to tune, and the history of its rounds: append-only, the newest steps say how it stands.

A round begins with `STARTED` and ends with one of `ENDED`; in between its newest step is what it is at. Whoever takes a
step names the one it comes after (compare-and-set), in the transaction that does what the step tells: of several
services one takes it, and a crash leaves all of it or nothing.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select

from app.errors import StaleGeneration
from app.registry.audit import Action, actor, record
from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import continuous_steps as steps

TARGET = "continuous-tuning"  # in the audit log


class StepKind(StrEnum):
    SET = "set"  # somebody set the order, or another one in its place
    REMOVED = "removed"  # somebody took it back
    STARTED = "started"  # a tuning was queued
    RESUMED = "resumed"  # ... which had been interrupted, and goes on
    CANARY = "canary"  # its encoder passed the gate and answers a part of the searches
    PROMOTED = "promoted"  # its encoder is active
    HELD = "held"  # it would be promoted: a person's turn
    DISCARDED = "discarded"  # nothing came of the round
    DRY_RUN = "dry-run"  # a round would have begun


OF_THE_ORDER = (StepKind.SET, StepKind.REMOVED)
ENDED = (StepKind.PROMOTED, StepKind.HELD, StepKind.DISCARDED, StepKind.DRY_RUN)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStep:
    kind: StepKind
    at: float
    said: str
    terms: dict[str, Any] | None = None
    set_by: str | None = None
    job_id: str | None = None
    encoder: str | None = None  # name@version
    generation: int | None = None
    judged_until: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(NewStep):
    sequence: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How the order stands. What is to be done next comes after the step `sequence`."""

    sequence: int = 0
    setting: Step | None = None  # the newest that set the order or took it back
    round: Step | None = None  # the newest of the round under way
    began: Step | None = None  # of the newest round, under way or not: how far the judgments are used
    before: float | None = None  # how far they were before that round; None: not at all
    rehearsed: Step | None = None  # the newest dry run of this order: it uses none, and is told once
    resumed: int = 0  # how often the tuning of the round under way was

    @property
    def order(self) -> Step | None:
        return self.setting if self.setting and self.setting.kind is StepKind.SET else None

    @property
    def judged_until(self) -> float | None:
        """What was judged later is new. None: all is."""
        newest = self.rehearsed or self.began
        return newest.judged_until if newest else None


class Continuous:
    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self) -> Standing:
        with self._database.read() as connection:
            return _standing(connection)

    def page(self, limit: int, *, before: int | None = None) -> list[Step]:
        """Newest first, those before the sequence `before`."""
        wanted = [steps.c.sequence < before] if before is not None else []
        with self._database.read() as connection:
            return _steps(connection, select(steps).where(*wanted).limit(limit))

    def set(self, terms: dict[str, Any], said: str) -> None:
        """In place of the order before. The same again changes nothing."""
        with self._database.write() as connection:
            before = _standing(connection)
            if before.order is None or before.order.terms != terms:
                self._by_somebody(connection, before, Action.CONTINUOUS_TUNING_SET, StepKind.SET, said, terms)

    def remove(self, said: str) -> None:
        """Where there is one."""
        with self._database.write() as connection:
            before = _standing(connection)
            if before.order is not None:
                self._by_somebody(connection, before, Action.CONTINUOUS_TUNING_REMOVED, StepKind.REMOVED, said)

    def take(self, after: int, new: NewStep) -> None:
        """A step that changes nothing else. Raises `StaleGeneration`."""
        with self._database.write() as connection:
            self.append(connection, after, new)

    @staticmethod
    def append(connection: Connection, after: int, new: NewStep) -> None:
        """In the transaction that does what it tells. Raises `StaleGeneration` where `after` is not the newest."""
        newest = connection.scalar(select(func.max(steps.c.sequence))) or 0
        if newest != after:
            raise StaleGeneration(f"Step {after} of continuous tuning was the newest, and {newest} is by now.")
        connection.execute(insert(steps).values(sequence=after + 1, **asdict(new)))

    def _by_somebody(
        self,
        connection: Connection,
        before: Standing,
        action: Action,
        kind: StepKind,
        said: str,
        terms: dict[str, Any] | None = None,
    ) -> None:
        at = connection.execute(select(now())).scalar_one()
        new = NewStep(kind=kind, at=at, said=said, terms=terms, set_by=actor().key)
        self.append(connection, before.sequence, new)
        detail: dict[str, Any] = {"terms": terms} if terms else {}
        record(connection, action, TARGET, **detail)


def _standing(connection: Connection) -> Standing:
    newest = _newest(connection)
    if newest is None:
        return Standing()
    of_a_round = _newest(connection, steps.c.kind.not_in(OF_THE_ORDER))
    under_way = of_a_round if of_a_round and of_a_round.kind not in ENDED else None
    resumed = 0
    if under_way is not None:
        these = steps.c.job_id == under_way.job_id, steps.c.kind == StepKind.RESUMED
        resumed = connection.scalar(select(func.count()).select_from(steps).where(*these)) or 0
    setting = _newest(connection, steps.c.kind.in_(OF_THE_ORDER))
    using = steps.c.judged_until.is_not(None), steps.c.kind != StepKind.DRY_RUN
    began = _newest(connection, *using)
    before = _newest(connection, *using, steps.c.sequence < began.sequence) if began else None
    of_this = steps.c.kind == StepKind.DRY_RUN, steps.c.sequence > (setting.sequence if setting else 0)
    return Standing(
        sequence=newest.sequence,
        setting=setting,
        round=under_way,
        began=began,
        before=before.judged_until if before else None,
        rehearsed=_newest(connection, *of_this),
        resumed=resumed,
    )


def _newest(connection: Connection, *conditions: Any) -> Step | None:
    return next(iter(_steps(connection, select(steps).where(*conditions).limit(1))), None)


def _steps(connection: Connection, query: Select[Any]) -> list[Step]:
    rows = connection.execute(query.order_by(steps.c.sequence.desc()))
    return [Step(**row._asdict() | {"kind": StepKind(row.kind)}) for row in rows]
