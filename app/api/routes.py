"""`/routes`: encoders for a part of the searches. A route's ETag is the generation that made it what it is."""

import time
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from app.api.active_encoder import NOT_ALL, ROLLBACK_S, replicas_public, settled
from app.api.deps import ExpectedGeneration, Parts, PartsDep, no_body
from app.api.description import STALE
from app.api.scopes import Scoped
from app.encoders.languages import worse_languages
from app.encoders.switching import Switched
from app.errors import InvalidField
from app.passages.payload import is_path
from app.registry import EncoderRecord, Match, MatchFilter, Route, RouteChange, RouteTerms
from app.wire.active_encoder import Swap
from app.wire.common import Name
from app.wire.routes import (
    RouteChangePublic,
    RouteDetail,
    RouteFilter,
    RouteList,
    RouteMatch,
    RoutePublic,
    RouteSet,
    RouteSwitched,
)

router = APIRouter(prefix="/routes", tags=["routes"], route_class=Scoped)

Called = Annotated[Name, Path()]


@router.get("", response_model=RouteList)
def list_routes(parts: PartsDep) -> RouteList:
    return RouteList(routes=[_public(route) for route in parts.registry.routes.standing()])


@router.get("/{name}", response_model=RouteDetail)
def read_route(
    name: Called, parts: PartsDep, response: Response, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> RouteDetail:
    """With its history, `limit` entries at most."""
    route = parts.registry.routes.find(name)
    response.headers["ETag"] = f'"{route.generation}"'
    history = [_change(each) for each in parts.registry.routes.history(name, limit)]
    return RouteDetail(**_public(route).model_dump(), history=history)


@router.put("/{name}", response_model=RouteSwitched, responses=STALE | NOT_ALL)
def set_route(
    name: Called, body: RouteSet, parts: PartsDep, expected: ExpectedGeneration, response: Response
) -> RouteSwitched:
    """Load, verify and warm the encoder, then let it answer what the route takes, as a generation of its own. Any
    failure leaves the route as it was. What is said here replaces all that was said before.

    A search may name it (`route`). One that names neither a route nor an encoder is taken by the first route, by name,
    whose `match` holds; what none takes is the active encoder's, and its canary's. Of what it takes, searches in one of
    `base_languages` are answered by the base; with `base_languages_from_card` those too in which the encoder finds less
    than the base, in the mean over all questions of its card, however little. `rule` in an answer says `route`, or
    `route-language` for those, and `route` which one. Searches by words alone (mode `lexical`), where no encoder has a
    part, have no route.

    200 when all live replicas have it, 202 where some have not after `timeout_s` or cannot: `replicas` names them.
    """
    until = time.monotonic() + body.timeout_s
    if body.match and body.match.filter and not is_path(body.match.filter.key):
        raise InvalidField("match.filter.key", "is no path in the metadata, such as topic or author.name.")
    if body.match and body.match.key and not parts.ring.locked:
        raise InvalidField("match.key", "tells nobody apart where the service asks for no key; leave it out.")
    record = parts.registry.encoders.find(body.encoder)
    worse = worse_languages(record) if body.base_languages_from_card else None
    terms = _terms(body, record, worse or ())
    switched = parts.switcher.set_route(name, terms, force=body.force, expected=expected, timeout_s=body.timeout_s)
    return _switched(name, switched, parts, response, until).model_copy(update={"from_card": worse})


@router.delete("/{name}", response_model=RouteSwitched, responses=STALE | NOT_ALL, dependencies=[Depends(no_body)])
def remove_route(name: Called, parts: PartsDep, expected: ExpectedGeneration, response: Response) -> RouteSwitched:
    """The active encoder answers what it took by itself, as a generation of its own; searches that name it get 404 from
    then on, so set it to the active encoder where that is not to be. The history stays, and a rollback brings it back.
    """
    until = time.monotonic() + ROLLBACK_S
    return _switched(name, parts.switcher.remove_route(name, expected=expected), parts, response, until)


@router.post(
    "/{name}/rollback", response_model=RouteSwitched, responses=STALE | NOT_ALL, dependencies=[Depends(no_body)]
)
def roll_route_back(name: Called, parts: PartsDep, expected: ExpectedGeneration, response: Response) -> RouteSwitched:
    """The route as it last stood otherwise: encoder, match and languages, as a generation of its own. A second rollback
    comes back, but never to a removal: where the first one brought back what was removed, the second leads to what the
    route was before that."""
    until = time.monotonic() + ROLLBACK_S
    return _switched(name, parts.switcher.roll_route_back(name, expected=expected), parts, response, until)


def _terms(body: RouteSet, record: EncoderRecord, worse: Iterable[str]) -> RouteTerms:
    match, said = None, body.match
    if said is not None:
        demanded = MatchFilter(key=said.filter.key, value=said.filter.value) if said.filter else None
        match = Match(lang=said.lang, filter=demanded, key=said.key)
    on_base = tuple(dict.fromkeys((*body.base_languages, *worse)))
    return RouteTerms(encoder_id=record.id, match=match, base_languages=on_base)


def _switched(name: str, switched: Switched, parts: Parts, response: Response, until: float) -> RouteSwitched:
    standing = settled(parts, switched.generation, until)
    if standing.behind:
        response.status_code = 202
    route = next((each.route for each in switched.active.routes if each.route.name == name), None)
    generation = route.generation if route else switched.generation
    response.headers["ETag"] = f'"{generation}"'
    return RouteSwitched(
        name=name,
        route=_public(route) if route else None,
        generation=generation,
        swap=Swap(load_ms=switched.load_ms, warmup_ms=switched.warmup_ms, switch_us=switched.switch_us),
        replicas=replicas_public(standing),
    )


def _public(route: Route) -> RoutePublic:
    terms = route.terms
    return RoutePublic(
        name=route.name,
        encoder=route.encoder,
        digest=route.digest,
        generation=route.generation,
        match=_match(terms.match),
        base_languages=list(terms.base_languages),
        at=route.at,
    )


def _change(change: RouteChange) -> RouteChangePublic:
    route = change.route
    return RouteChangePublic(
        generation=change.generation,
        encoder=route.encoder if route else None,
        match=_match(route.terms.match) if route else None,
        base_languages=list(route.terms.base_languages) if route else [],
        reason=change.reason,
        forced=change.forced,
        at=change.at,
        note=change.note,
    )


def _match(match: Match | None) -> RouteMatch | None:
    if match is None:
        return None
    return RouteMatch(
        lang=match.lang,
        filter=RouteFilter(key=match.filter.key, value=match.filter.value) if match.filter else None,
        key=match.key,
    )
