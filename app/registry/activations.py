"""The history of generations: append-only, one row per activation. The newest row says what is active."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select

from app.errors import Conflict, StaleGeneration
from app.registry.audit import Action, record
from app.registry.bell import ring
from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import activations, encoders

Reason = Literal["start", "activate", "rollback", "job", "fallback"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    generation: int
    encoder_id: int
    encoder: str  # name@version
    digest: str
    reason: str
    forced: bool
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Advanced:
    newest: list[Activation]  # what is active now and what was before it
    changed: bool  # False: it was active already


class Activations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, encoder_id: int, *, reason: Reason, forced: bool = False, expected: int | None = None
    ) -> Activation:
        """Write the next generation. With `expected`, only if that is still the newest (compare-and-set).

        Raises `StaleGeneration` when it is not, `Conflict` when the encoder was deleted meanwhile.
        """
        return self.advance(encoder_id, reason=reason, forced=forced, expected=expected, again=True).newest[0]

    def advance(
        self,
        encoder_id: int,
        *,
        reason: Reason,
        forced: bool = False,
        expected: int | None = None,
        again: bool = False,
    ) -> "Advanced":
        """As `append`, but an encoder that is active already makes no generation unless `again`."""
        with self._database.write() as connection:
            newest = _newest(connection, 2)
            generation = newest[0].generation if newest else 0
            if expected is not None and expected != generation:
                raise StaleGeneration(
                    f"Generation {expected} was expected, but {generation} is active: "
                    "read GET /active-encoder again and repeat with its ETag.",
                    generation=generation,
                )
            if newest and newest[0].encoder_id == encoder_id and not again:
                return Advanced(newest=newest, changed=False)
            state = connection.scalar(select(encoders.c.state).where(encoders.c.id == encoder_id))
            if state == "deleted":
                raise Conflict("The encoder was deleted while it was being activated.")
            connection.execute(
                insert(activations).values(
                    generation=generation + 1,
                    encoder_id=encoder_id,
                    reason=reason,
                    forced=int(forced),
                    at=now(),
                )
            )
            newest = _newest(connection, 2)
            record(
                connection,
                Action.ROLLED_BACK if reason == "rollback" else Action.SWITCHED,
                newest[0].encoder,
                outcome="forced" if forced else "done",
                generation=newest[0].generation,
                reason=reason,
            )
            ring(connection)
            return Advanced(newest=newest, changed=True)

    def newest(self, count: int = 2) -> list[Activation]:
        """The active one first, then the one before it, ..."""
        with self._database.read() as connection:
            return _newest(connection, count)


def _newest(connection: Connection, count: int) -> list[Activation]:
    query = (
        select(activations, encoders.c.name, encoders.c.version, encoders.c.digest)
        .join(encoders, encoders.c.id == activations.c.encoder_id)
        .order_by(activations.c.generation.desc())
        .limit(count)
    )
    return [_activation(row) for row in connection.execute(query)]


def _activation(row: Row[Any]) -> Activation:
    return Activation(
        generation=row.generation,
        encoder_id=row.encoder_id,
        encoder=f"{row.name}@{row.version}",
        digest=row.digest,
        reason=row.reason,
        forced=bool(row.forced),
        at=row.at,
    )
