"""`/health/live`, `/health/ready`, `/version`: open without a key, so that an orchestrator can ask; by HEAD too."""

import time
from contextlib import suppress

from fastapi import APIRouter, Response

from app import __version__
from app.api.deps import OwnTrainer, Parts, PartsDep
from app.api.watching import watching
from app.errors import AdiabatError, Unavailable
from app.observe.state import TRAINER_SILENT_S
from app.wire.common import EncoderUsed
from app.wire.health import Live, Ready, Version

router = APIRouter(tags=["health"])

STARTING_S = 60.0


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", response_model=Live)
async def live() -> Live:
    """The process runs and its loop turns."""
    return Live()


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", response_model=Ready)
async def ready(parts: PartsDep, response: Response) -> Ready:
    """Whether searches can be answered. A dead trainer or a fallback is named and leaves it at 200."""
    return await watching(lambda: _ready(parts, response))


@router.head("/version", include_in_schema=False)
@router.get("/version", response_model=Version)
async def version() -> Version:
    return Version(version=__version__)


def _ready(parts: Parts, response: Response) -> Ready:
    trainer = _trainer_of(parts)
    said = (parts.switcher.fallback_reason, parts.pool.overfull(), parts.replicas.note(), *_clocks_of(parts))
    notes = [note for note in said if note]
    try:
        if parts.replicas.is_paused():
            raise Unavailable("This replica was paused and has not yet caught up with the others; ask another one.")
        active = parts.slot.current
        info = parts.store.info()
    except AdiabatError as error:
        response.status_code = 503
        return Ready(status="not-ready", trainer=trainer, notes=[*notes, error.detail])
    record = active.encoder.record
    return Ready(
        status="ready",
        encoder=EncoderUsed(
            name=record.name, version=record.version, digest=record.digest, generation=active.generation
        ),
        passages=info.passages,
        indexing=info.indexing,
        trainer=trainer,
        notes=notes,
    )


def _trainer_of(parts: Parts) -> str:
    with suppress(Unavailable):  # searches are answered without the registry
        if parts.replicas.registry_answers():
            return _trainer(parts.registry.workers.ages_s(), parts.own_trainer)
    return "unknown: the registry does not answer"


def _clocks_of(parts: Parts) -> list[str]:
    """Of all services and trainers: a trainer has no address of its own to ask."""
    with suppress(Unavailable):
        if parts.replicas.registry_answers():
            return parts.registry.clocks.differing()
    return []


def _trainer(ages_s: dict[str, float], own: OwnTrainer) -> str:
    alive = min(ages_s.values(), default=TRAINER_SILENT_S) < TRAINER_SILENT_S
    if not alive and own.began is not None and time.monotonic() - own.began < STARTING_S:
        return "starting: this service's own, which takes some seconds"
    if not ages_s:
        return "none yet: tuning jobs wait for one ('adiabat serve' starts it, or python -m trainer)"
    name, age = min(ages_s.items(), key=lambda item: item[1])
    return f"alive: {name}" if age < TRAINER_SILENT_S else f"dead: {name} was last seen {age:.0f} s ago"
