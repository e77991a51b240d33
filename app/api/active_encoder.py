"""`/active-encoder`: what `/search` uses, the switch, the way back, the history. ETags name generations."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.api.deps import ExpectedGeneration, PartsDep, no_body
from app.api.description import STALE
from app.api.scopes import Scoped
from app.encoders.switching import Switched
from app.registry import EncoderRecord
from app.wire.active_encoder import (
    Activate,
    ActivationPublic,
    ActiveEncoder,
    EncoderNamed,
    History,
    Swap,
    SwitchedPublic,
)
from app.wire.common import EncoderUsed

router = APIRouter(prefix="/active-encoder", tags=["switching"], route_class=Scoped)


@router.get("", response_model=ActiveEncoder)
def read_active_encoder(parts: PartsDep, response: Response) -> ActiveEncoder:
    active = parts.slot.current
    response.headers["ETag"] = f'"{active.generation}"'
    return ActiveEncoder(
        encoder=_used(active.encoder.record, active.generation),
        previous=_named(active.previous),
        fallback_reason=parts.switcher.fallback_reason,
    )


@router.put("", response_model=SwitchedPublic, responses=STALE)
def activate_encoder(
    body: Activate, parts: PartsDep, expected: ExpectedGeneration, response: Response
) -> SwitchedPublic:
    """Load, verify and warm the encoder, then swap. Any failure leaves the old one active."""
    switched = parts.switcher.activate(
        body.name, body.version, force=body.force, expected=expected, timeout_s=body.timeout_s
    )
    return _public(switched, response)


@router.post("/rollback", response_model=SwitchedPublic, responses=STALE, dependencies=[Depends(no_body)])
def roll_back(parts: PartsDep, expected: ExpectedGeneration, response: Response) -> SwitchedPublic:
    """Activate the encoder before this one, as a new generation. A second rollback comes back."""
    return _public(parts.switcher.rollback(expected=expected), response)


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
            )
            for item in parts.registry.activations.newest(limit)
        ]
    )


def _public(switched: Switched, response: Response) -> SwitchedPublic:
    active = switched.active
    response.headers["ETag"] = f'"{active.generation}"'
    return SwitchedPublic(
        encoder=_used(active.encoder.record, active.generation),
        previous=_named(active.previous),
        swap=Swap(load_ms=switched.load_ms, warmup_ms=switched.warmup_ms, switch_us=switched.switch_us),
        replicas={"live": 1, "switched": 1},
    )


def _used(record: EncoderRecord, generation: int) -> EncoderUsed:
    return EncoderUsed(name=record.name, version=record.version, digest=record.digest, generation=generation)


def _named(record: EncoderRecord | None) -> EncoderNamed | None:
    if record is None:
        return None
    return EncoderNamed(name=record.name, version=record.version, digest=record.digest)
