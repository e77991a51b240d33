"""What the slot is to hold at a generation, of what is in memory. Nothing is loaded here."""

from collections.abc import Callable, Iterable, Mapping

from app.encoders.loaded import LoadedEncoder
from app.encoders.routes import LoadedRoute
from app.encoders.slot import Active, Split
from app.registry import Canary, EncoderRecord, Route, Serving


def next_active(
    serving: Serving,
    brought: Iterable[LoadedEncoder],
    filled: Active | None,
    *,
    base_id: int,
    find: Callable[[int], EncoderRecord],
) -> Active | None:
    """Of what was `brought` and what the slot holds.

    A route whose encoder is neither stays as it was, and the generation is not reached. None where the active encoder
    or its canary is neither: another service switched just now, and `Switcher.follow` takes that up.
    """
    known = {each.record.id: each for each in [*(filled.in_use() if filled else []), *brought]}
    canary = serving.active.canary
    if not {serving.active.encoder_id, *([canary.encoder_id] if canary else [])} <= known.keys():
        return None
    standing = {each.route.name: each for each in filled.routes} if filled else {}
    routes = [_routed(route, known, base_id) or standing.get(route.name) for route in serving.routes]
    whole = [each.route for each in routes if each] == list(serving.routes)
    return Active(
        encoder=known[serving.active.encoder_id],
        generation=serving.active.generation,
        reached=serving.generation if whole or filled is None else filled.reached,
        previous=_before(serving, filled, find),
        split=_split(canary, known),
        routes=tuple(each for each in routes if each),
    )


def _before(serving: Serving, filled: Active | None, find: Callable[[int], EncoderRecord]) -> EncoderRecord | None:
    """What a rollback would activate. Mostly what is here now: the registry may have gone away by this moment."""
    if serving.previous is None:
        return None
    for known in (filled.encoder.record, filled.previous) if filled else ():
        if known is not None and known.id == serving.previous.encoder_id:
            return known
    return find(serving.previous.encoder_id)


def _split(canary: Canary | None, known: Mapping[int, LoadedEncoder]) -> Split | None:
    if canary is None:
        return None
    return Split(
        encoder=known[canary.encoder_id],
        percent=canary.percent,
        sticky_by=canary.sticky_by,
        interleave=canary.interleave,
        rules=canary.rules,
    )


def _routed(route: Route, known: Mapping[int, LoadedEncoder], base_id: int) -> LoadedRoute | None:
    """None where its encoder is not to be had here."""
    encoder, base = known.get(route.terms.encoder_id), known.get(base_id)
    if encoder is None or (route.terms.base_languages and base is None):
        return None
    return LoadedRoute(route=route, encoder=encoder, base=base if route.terms.base_languages else None)
