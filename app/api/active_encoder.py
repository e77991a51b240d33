"""`/active-encoder`: what `/search` uses, the switch, the way back, the history. ETags name generations."""

import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from app.api.deps import ExpectedGeneration, Parts, PartsDep, no_body
from app.api.description import STALE
from app.api.scopes import Scoped
from app.encoders.replicas import Behind, Standing
from app.encoders.slot import Active
from app.encoders.switching import Switched
from app.errors import InvalidField, Unavailable
from app.registry import Canary, EncoderRecord, Rules
from app.wire.active_encoder import (
    STICKY_KEY,
    Activate,
    ActivationPublic,
    ActiveEncoder,
    CanaryCreate,
    CanaryPublic,
    CanaryRules,
    CanaryTerms,
    EncoderNamed,
    History,
    ReplicaBehind,
    Replicas,
    Swap,
    SwitchedPublic,
)
from app.wire.common import EncoderUsed

router = APIRouter(prefix="/active-encoder", tags=["switching"], route_class=Scoped)

ROLLBACK_S = 30.0
NOT_ALL: dict[int | str, dict[str, Any]] = {
    202: {
        "model": SwitchedPublic,
        "description": "Active, but not yet in every live replica; `replicas` names the rest.",
    }
}


@router.get("", response_model=ActiveEncoder)
def read_active_encoder(parts: PartsDep, response: Response) -> ActiveEncoder:
    active = parts.slot.current
    response.headers["ETag"] = f'"{active.generation}"'
    return ActiveEncoder(
        encoder=_used(active.encoder.record, active.generation),
        previous=_named(active.previous),
        canary=_split(active),
        fallback_reason=parts.switcher.fallback_reason,
        replicas=_standing(parts),
    )


@router.put("", response_model=SwitchedPublic, responses=STALE | NOT_ALL)
def activate_encoder(
    body: Activate, parts: PartsDep, expected: ExpectedGeneration, response: Response
) -> SwitchedPublic:
    """Load, verify and warm the encoder, then swap. Any failure leaves the old one active.

    200 when all live replicas have it, 202 where some have not after `timeout_s` or cannot: `replicas` names them.

    With `canary`, the encoder that is active stays so, and the other one answers `percent` of the searches that name
    none and that no route takes, as a generation of its own: `rule` in an answer says which chose. Who asks is told
    apart by their key or by a header, always with the same result; a greater percentage of the same encoder keeps
    whoever it had. Activating an encoder, the same one too, or a rollback ends it. With `interleave` both encoders
    answer each of these searches together (`POST /search` and `GET /search`, but with `compare_to` or
    `with_query_vector`): their hits come in turns, `interleaved_with` names the second encoder, and a page goes on as
    the first one began.

    Its `rules` end a canary by themselves, as a generation whose `note` in the history says why.
    """
    until = time.monotonic() + body.timeout_s
    if body.canary is not None:
        return _public(_start_split(body, body.canary, parts, expected), parts, response, until)
    switched = parts.switcher.activate(
        body.name or "", body.version, force=body.force, expected=expected, timeout_s=body.timeout_s
    )
    return _public(switched, parts, response, until)


@router.post("/rollback", response_model=SwitchedPublic, responses=STALE | NOT_ALL, dependencies=[Depends(no_body)])
def roll_back(parts: PartsDep, expected: ExpectedGeneration, response: Response) -> SwitchedPublic:
    """Activate the encoder before this one, as a new generation; where there is a canary, only end it. A second
    rollback comes back."""
    until = time.monotonic() + ROLLBACK_S
    return _public(parts.switcher.rollback(expected=expected), parts, response, until)


@router.get("/history", response_model=History)
def read_history(parts: PartsDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> History:
    """Newest first."""
    return History(
        activations=[
            ActivationPublic(
                generation=item.generation,
                encoder=item.encoder,
                digest=item.digest,
                reason=item.reason,
                forced=item.forced,
                at=item.at,
                canary=canary_public(item.canary),
                note=item.note,
            )
            for item in parts.registry.activations.newest(limit)
        ]
    )


def canary_public(canary: Canary | None) -> CanaryPublic | None:
    if canary is None:
        return None
    return CanaryPublic(
        encoder=canary.encoder,
        percent=canary.percent,
        sticky_by=canary.sticky_by,
        interleave=canary.interleave,
        rules=CanaryRules(**asdict(canary.rules)) if canary.rules else None,
    )


def check_told_apart(canary: CanaryTerms, parts: Parts) -> None:
    """Raises `InvalidField` where nothing tells apart who asks."""
    everybody = canary.percent == 100  # nobody has to be
    if canary.sticky_by == STICKY_KEY and not parts.ring.locked and not everybody:
        raise InvalidField(
            "canary.sticky_by",
            "'key' (the default) tells nobody apart where the service asks for no key; name a header that tells who "
            "asks, as 'X-User-Id'.",
        )


def _start_split(body: Activate, canary: CanaryCreate, parts: Parts, expected: int | None) -> Switched:
    check_told_apart(canary, parts)
    return parts.switcher.split(
        canary.name,
        canary.version,
        percent=canary.percent,
        sticky_by=canary.sticky_by,
        interleave=canary.interleave,
        rules=Rules(**canary.rules.model_dump()) if canary.rules else None,
        force=body.force,
        expected=expected,
        timeout_s=body.timeout_s,
    )


def _public(switched: Switched, parts: Parts, response: Response, until: float) -> SwitchedPublic:
    active = switched.active
    standing = settled(parts, active.generation, until)
    if standing.behind:
        response.status_code = 202
    response.headers["ETag"] = f'"{active.generation}"'
    return SwitchedPublic(
        encoder=_used(active.encoder.record, active.generation),
        previous=_named(active.previous),
        canary=_split(active),
        swap=Swap(load_ms=switched.load_ms, warmup_ms=switched.warmup_ms, switch_us=switched.switch_us),
        replicas=replicas_public(standing),
    )


def settled(parts: Parts, generation: int, until: float) -> Standing:
    """The switch is done: a registry that went away meanwhile does not undo it."""
    try:
        return parts.replicas.settled(generation, max(until - time.monotonic(), 0))
    except Unavailable as error:
        unknown = Behind(name="unknown", generation=generation, reason=error.detail)
        return Standing(live=1, behind=(unknown,))


def _standing(parts: Parts) -> Replicas | None:
    try:
        return replicas_public(parts.replicas.standing())
    except Unavailable:
        return None


def replicas_public(standing: Standing) -> Replicas:
    behind = [ReplicaBehind(name=each.name, generation=each.generation, reason=each.reason) for each in standing.behind]
    return Replicas(live=standing.live, switched=standing.switched, behind=behind)


def _used(record: EncoderRecord, generation: int) -> EncoderUsed:
    return EncoderUsed(name=record.name, version=record.version, digest=record.digest, generation=generation)


def _split(active: Active) -> CanaryPublic | None:
    split = active.split
    if split is None:
        return None
    return CanaryPublic(
        encoder=split.encoder.record.key,
        percent=split.percent,
        sticky_by=split.sticky_by,
        interleave=split.interleave,
        rules=CanaryRules(**asdict(split.rules)) if split.rules else None,
    )


def _named(record: EncoderRecord | None) -> EncoderNamed | None:
    if record is None:
        return None
    return EncoderNamed(name=record.name, version=record.version, digest=record.digest)
