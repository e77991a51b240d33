"""Named routes: which encoder answers a part of the searches. Append-only, one row per change.

A change of a route is a generation, numbered on together with activations: whoever follows generations follows routes.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, func, insert, select

from app.errors import Conflict, RouteNotFound, StaleGeneration
from app.registry.audit import Action, record
from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import activations, encoders, routes

MAX_ROUTES = 100  # each search is held against them, one after another

Value = str | int | bool
RouteReason = Literal["set", "rollback", "removed", "fallback"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchFilter:
    """A value that a search's filter demands of every hit."""

    key: str  # of the metadata
    value: Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Which searches a route takes that do not name it: those for which all that is said here holds."""

    lang: tuple[str, ...] = ()  # primary subtags
    filter: MatchFilter | None = None
    key: tuple[str, ...] = ()  # names of API keys


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteTerms:
    """What a route is: its encoder, the searches it takes, and the languages that stay on the base all the same."""

    encoder_id: int
    match: Match | None = None  # None: only those that name it
    base_languages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    name: str
    terms: RouteTerms
    encoder: str  # name@version
    digest: str
    generation: int  # that made it so
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteChange:
    generation: int
    name: str
    route: Route | None  # None: it was removed
    reason: str
    forced: bool
    at: float
    note: str | None


class Routes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self) -> list[Route]:
        """By name."""
        with self._database.read() as connection:
            return standing_routes(connection)

    def find(self, name: str) -> Route:
        """Raises `RouteNotFound`."""
        with self._database.read() as connection:
            newest = _newest(connection, name)
            if newest is None or newest.route is None:
                raise _missing(connection, name, newest)
            return newest.route

    def history(self, name: str, limit: int | None = None) -> list[RouteChange]:
        """Newest first, those from before a removal too."""
        with self._database.read() as connection:
            return _changes(connection, _rows().where(routes.c.name == name).limit(limit))

    def before(self, name: str) -> tuple[RouteChange, Route]:
        """The newest change, and the route as it last stood otherwise: the way back, which never leads to a removal.

        Raises `RouteNotFound` where it never was, `Conflict` where it never stood otherwise.
        """
        changes = self.history(name)
        if not changes:
            with self._database.read() as connection:
                raise _missing(connection, name, None)
        for change in changes[1:]:
            if change.route is not None and not _stands_by(changes[0].route, change.route.terms):
                return changes[0], change.route
        raise Conflict(
            f"There is nothing to roll back to: the route {name!r} never stood otherwise. PUT /routes/{name} sets it "
            "to another encoder, DELETE ends it."
        )


def newest_generation(connection: Connection) -> int:
    """Of activations and routes together; 0 before the first."""
    newest = [connection.scalar(select(func.max(table.c.generation))) for table in (activations, routes)]
    return max(each or 0 for each in newest)


def standing_routes(connection: Connection) -> list[Route]:
    newest = select(func.max(routes.c.generation)).group_by(routes.c.name)
    found = _changes(connection, _rows().where(routes.c.generation.in_(newest)))
    return sorted((change.route for change in found if change.route is not None), key=lambda route: route.name)


def write_route(
    connection: Connection,
    name: str,
    terms: RouteTerms | None,
    *,
    reason: RouteReason,
    forced: bool = False,
    expected: int | None = None,
    note: str | None = None,
) -> bool:
    """Write the next generation: the route stands by `terms`, or no more. False: it stood so, and nothing is written.

    Raises `StaleGeneration` where another than the `expected` generation made it what it is, `RouteNotFound` for a
    removal of none, `Conflict` where its encoder was deleted meanwhile or there are too many.
    """
    newest = _newest(connection, name)
    check_expected(name, expected, newest.generation if newest else 0)
    stands = newest.route if newest else None
    if terms is None and stands is None:
        raise _missing(connection, name, newest)
    if terms is not None and _stands_by(stands, terms):
        return False
    if stands is None and len(standing_routes(connection)) >= MAX_ROUTES:
        raise Conflict(f"There are {MAX_ROUTES} routes, and no more may be: delete one of them first.")
    named: Row[Any] | None = None
    if terms is not None:
        named = connection.execute(select(encoders).where(encoders.c.id == terms.encoder_id)).one()
        if named.state == "deleted":
            raise Conflict("The encoder was deleted while the route was being set.")
    said: dict[str, Any] = {}
    if terms is not None:
        said = {"match": terms.match and asdict(terms.match), "base_languages": terms.base_languages}
    generation = newest_generation(connection) + 1
    connection.execute(
        insert(routes).values(
            generation=generation,
            name=name,
            encoder_id=terms and terms.encoder_id,
            terms=said,
            reason=reason,
            forced=int(forced),
            at=now(),
            note=note,
        )
    )
    record(
        connection,
        Action.ROUTE_SET if terms else Action.ROUTE_REMOVED,
        name,
        outcome="forced" if forced else "done",
        generation=generation,
        reason=reason,
        **({"encoder": f"{named.name}@{named.version}"} if named else {}),
        **said,
        **({"note": note} if note else {}),
    )
    return True


def check_expected(name: str, expected: int | None, generation: int) -> None:
    """Raises `StaleGeneration`."""
    if expected is None or expected == generation:
        return
    made = f"generation {generation} made it what it is" if generation else "it was never set"
    raise StaleGeneration(
        f"Generation {expected} was expected of the route {name!r}, but {made}: read GET /routes/{name} again and "
        'repeat with its ETag, or with "0" where there is none.',
        generation=generation,
    )


def _stands_by(route: Route | None, terms: RouteTerms) -> bool:
    """As JSON: to Python 1 and true are the same value of a filter."""
    return route is not None and json.dumps(asdict(route.terms)) == json.dumps(asdict(terms))


def _rows() -> Select[Any]:
    named = encoders.c.name.label("encoder_name"), encoders.c.version, encoders.c.digest
    joined = select(routes).add_columns(*named).outerjoin(encoders, encoders.c.id == routes.c.encoder_id)
    return joined.order_by(routes.c.generation.desc())


def _newest(connection: Connection, name: str) -> RouteChange | None:
    return next(iter(_changes(connection, _rows().where(routes.c.name == name).limit(1))), None)


def _changes(connection: Connection, query: Select[Any]) -> list[RouteChange]:
    return [_change(row) for row in connection.execute(query)]


def _change(row: Row[Any]) -> RouteChange:
    return RouteChange(
        generation=row.generation,
        name=row.name,
        route=None if row.encoder_id is None else _route(row),
        reason=row.reason,
        forced=bool(row.forced),
        at=row.at,
        note=row.note,
    )


def _route(row: Row[Any]) -> Route:
    said = row.terms["match"]
    match = said and Match(
        lang=tuple(said["lang"]),
        filter=MatchFilter(**said["filter"]) if said["filter"] else None,
        key=tuple(said["key"]),
    )
    terms = RouteTerms(encoder_id=row.encoder_id, match=match, base_languages=tuple(row.terms["base_languages"]))
    encoder = f"{row.encoder_name}@{row.version}"
    return Route(name=row.name, terms=terms, encoder=encoder, digest=row.digest, generation=row.generation, at=row.at)


def _missing(connection: Connection, name: str, newest: RouteChange | None) -> RouteNotFound:
    if newest is not None:
        return RouteNotFound(
            f"The route {name!r} was removed in generation {newest.generation}; POST /routes/{name}/rollback brings it "
            "back."
        )
    return RouteNotFound.among(name, [route.name for route in standing_routes(connection)])
