"""The history of generations: append-only, one row per activation. The newest row says what is active."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, insert, select

from app.errors import Conflict, StaleGeneration
from app.registry.audit import Action, record
from app.registry.bell import ring
from app.registry.clock import now
from app.registry.database import Database
from app.registry.routes import Route, RouteReason, RouteTerms, newest_generation, standing_routes, write_route
from app.registry.tables import activations, encoders

# "route" is for figures alone: what changes a route is no activation, and has a reason of its own.
Reason = Literal["start", "activate", "rollback", "job", "fallback", "canary", "rule", "continuous", "route"]
BACK = ("rollback", "rule")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What ends a canary by itself; `app.guarding` applies them. None: that one does not."""

    alpha: float  # of the test on clicks
    min_requests: int  # of either encoder, before any rule acts
    window_s: float
    clicks: bool
    zero_hits: float | None  # by how much the share of searches without a hit may be greater
    errors: float | None  # and that of those that fail
    latency: float | None  # how many times as long a search may take in the mean
    score_shift: float | None = None  # how far apart the mean scores of the best hits may be


@dataclass(frozen=True, kw_only=True, slots=True)
class NewCanary:
    """A second encoder for `percent` of the requests, chosen by their key or by the header `sticky_by`."""

    encoder_id: int
    percent: float
    sticky_by: str
    interleave: bool = False  # both encoders answer each of those requests, their hits in turns
    rules: Rules | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary(NewCanary):
    encoder: str  # name@version


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    generation: int
    encoder_id: int
    encoder: str  # name@version
    digest: str
    reason: str
    forced: bool
    at: float
    canary: Canary | None
    note: str | None = None  # why the service did it by itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """All that holds at a generation."""

    generation: int  # the newest: it made `active` or one of the routes what it is
    active: Activation
    previous: Activation | None  # the newest one of another encoder: the way back
    routes: tuple[Route, ...]  # by name


@dataclass(frozen=True, kw_only=True, slots=True)
class Advanced:
    serving: Serving
    changed: bool  # False: it was so already


# (connection, the generation that was made): done in its transaction; a refusal takes both back
AlsoOfActivation = Callable[[Connection, Activation], None]


class Activations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, encoder_id: int, *, reason: Reason, forced: bool = False, expected: int | None = None
    ) -> Activation:
        """Write the next generation. With `expected`, only if that made active what is so (compare-and-set).

        Raises `StaleGeneration` when it is not, `Conflict` when the encoder was deleted meanwhile.
        """
        return self.advance(encoder_id, reason=reason, forced=forced, expected=expected, again=True).serving.active

    def advance(
        self,
        encoder_id: int,
        *,
        reason: Reason,
        forced: bool = False,
        expected: int | None = None,
        again: bool = False,
        canary: NewCanary | None = None,
        note: str | None = None,
        also: AlsoOfActivation | None = None,
    ) -> "Advanced":
        """As `append`, with a `canary` or without; what is so already makes no generation unless `again`.

        `also` is done in the same transaction, where there is one to be made.
        """
        with self._database.write() as connection:
            newest = _newest(connection, 1)
            generation = newest[0].generation if newest else 0
            if expected is not None and expected != generation:
                raise StaleGeneration(
                    f"Generation {expected} was expected, but {generation} is active: "
                    "read GET /active-encoder again and repeat with its ETag.",
                    generation=generation,
                )
            if newest and not again and (newest[0].encoder_id, _told(newest[0].canary)) == (encoder_id, _told(canary)):
                return Advanced(serving=_serving(connection), changed=False)
            wanted = [encoder_id, *([canary.encoder_id] if canary else [])]
            states = connection.scalars(select(encoders.c.state).where(encoders.c.id.in_(wanted)))
            if "deleted" in states.all():
                raise Conflict("The encoder was deleted while it was being activated.")
            connection.execute(
                insert(activations).values(
                    generation=newest_generation(connection) + 1,
                    encoder_id=encoder_id,
                    reason=reason,
                    forced=int(forced),
                    at=now(),
                    canary_id=canary and canary.encoder_id,
                    canary_percent=canary and canary.percent,
                    canary_sticky_by=canary and canary.sticky_by,
                    canary_interleave=canary and int(canary.interleave),
                    canary_rules=asdict(canary.rules) if canary and canary.rules else None,
                    note=note,
                )
            )
            (made,) = _newest(connection, 1)
            split = made.canary
            detail: dict[str, Any] = {"canary": split.encoder, "percent": split.percent} if split else {}
            detail |= {"note": note} if note else {}
            record(
                connection,
                Action.ROLLED_BACK if reason in BACK else Action.SWITCHED,
                made.encoder,
                outcome="forced" if forced else "done",
                generation=made.generation,
                reason=reason,
                **detail,
            )
            if also is not None:
                also(connection, made)
            ring(connection)
            return Advanced(serving=_serving(connection), changed=True)

    def change_route(
        self,
        name: str,
        terms: RouteTerms | None,
        *,
        reason: RouteReason,
        forced: bool = False,
        expected: int | None = None,
        note: str | None = None,
    ) -> Advanced:
        """The route of that name stands by `terms` from the next generation on; None: no more. Raises as `write_route`
        does."""
        with self._database.write() as connection:
            changed = write_route(connection, name, terms, reason=reason, forced=forced, expected=expected, note=note)
            if changed:
                ring(connection)
            return Advanced(serving=_serving(connection), changed=changed)

    def serving(self) -> Serving | None:
        """None before the first generation."""
        with self._database.read() as connection:
            return _serving(connection) if newest_generation(connection) else None

    def generation(self) -> int:
        """The newest, whether it made an encoder active or changed a route."""
        with self._database.read() as connection:
            return newest_generation(connection)

    def roles(self) -> dict[int, str]:
        """By encoder id: what the service needs it for now, as in "it is the active encoder"."""
        with self._database.read() as connection:
            return roles(connection)

    def newest(self, count: int = 2) -> list[Activation]:
        """The active one first, then the one before it, ..."""
        with self._database.read() as connection:
            return _newest(connection, count)


def roles(connection: Connection) -> dict[int, str]:
    """By encoder id: "active encoder", "canary encoder", "previous encoder" or "encoder of the route 'NAME'"."""
    if not newest_generation(connection):
        return {}
    serving = _serving(connection)
    found = {route.terms.encoder_id: f"encoder of the route {route.name!r}" for route in serving.routes}
    found |= {serving.previous.encoder_id: "previous encoder"} if serving.previous else {}
    found[serving.active.encoder_id] = "active encoder"
    if serving.active.canary:
        found[serving.active.canary.encoder_id] = "canary encoder"
    return found


def _serving(connection: Connection) -> Serving:
    """The generation is read first: outside of a transaction the rest may be newer than it, and is never older."""
    generation = newest_generation(connection)
    (active,) = _newest(connection, 1)
    previous = _newest(connection, 1, activations.c.encoder_id != active.encoder_id)
    return Serving(
        generation=generation,
        active=active,
        previous=previous[0] if previous else None,
        routes=tuple(standing_routes(connection)),
    )


def _told(canary: NewCanary | None) -> tuple[int, float, str, bool, Rules | None] | None:
    if canary is None:
        return None
    return canary.encoder_id, canary.percent, canary.sticky_by, canary.interleave, canary.rules


def _newest(connection: Connection, count: int, *conditions: ColumnElement[bool]) -> list[Activation]:
    query = with_encoders(select(activations)).where(*conditions).order_by(activations.c.generation.desc()).limit(count)
    return to_activations(connection.execute(query))


def with_encoders(query: Select[Any]) -> Select[Any]:
    """Of activations, with what names their encoders."""
    second = encoders.alias()
    named = second.c.name.label("canary_name"), second.c.version.label("canary_version")
    return (
        query.add_columns(encoders.c.name, encoders.c.version, encoders.c.digest, *named)
        .join(encoders, encoders.c.id == activations.c.encoder_id)
        .outerjoin(second, second.c.id == activations.c.canary_id)
    )


def to_activations(rows: Iterable[Row[Any]]) -> list[Activation]:
    return [_activation(row) for row in rows]


def _activation(row: Row[Any]) -> Activation:
    return Activation(
        generation=row.generation,
        encoder_id=row.encoder_id,
        encoder=f"{row.name}@{row.version}",
        digest=row.digest,
        reason=row.reason,
        forced=bool(row.forced),
        at=row.at,
        canary=_canary(row),
        note=row.note,
    )


def _canary(row: Row[Any]) -> Canary | None:
    if row.canary_id is None:
        return None
    return Canary(
        encoder_id=row.canary_id,
        percent=row.canary_percent,
        sticky_by=row.canary_sticky_by,
        interleave=bool(row.canary_interleave),
        rules=Rules(**row.canary_rules) if row.canary_rules else None,
        encoder=f"{row.canary_name}@{row.canary_version}",
    )
