"""What routes ask for: the assembled parts, and parameters that are checked."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Header, Request
from fastapi.dependencies.models import Dependant

from app.api.event_stream import EventStreams
from app.api.permits import AllPermits
from app.api.refusals import Refusals
from app.continuous import ContinuousTuner
from app.datasets import DatasetStore
from app.encoders.admission import Registrar
from app.encoders.artifacts import ArtifactStore
from app.encoders.pool import EncoderPool
from app.encoders.replicas import Among
from app.encoders.slot import Slot
from app.encoders.switching import Switcher
from app.errors import InvalidField
from app.experiments import ExperimentKeeper
from app.ingest import Ingest
from app.intake import Intake
from app.keys import KeyRing
from app.observe.metrics import Metrics
from app.openai_tokens import Vocabulary
from app.passages import PassageStore
from app.plainly import likely
from app.preparing import JobKeeper
from app.query_log import QueryLog
from app.registry import Registry
from app.retrieval import Retrieval
from app.settings import Settings

if TYPE_CHECKING:  # it imports the SDK, which few have asked for
    from app.observe.traces import Traces

MAX_DIGITS = 9


@dataclass(kw_only=True, slots=True)
class OwnTrainer:
    """Of a service that starts one beside itself."""

    began: float | None = None  # by the monotonic clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Everything the lifespan assembled. Holds the slot, never an encoder: that one changes."""

    settings: Settings
    registry: Registry
    ring: KeyRing
    refusals: Refusals
    artifacts: ArtifactStore
    store: PassageStore
    pool: EncoderPool
    slot: Slot
    switcher: Switcher
    replicas: Among
    registrar: Registrar
    retrieval: Retrieval
    ingest: Ingest
    intake: Intake
    datasets: DatasetStore
    query_log: QueryLog
    experiments: ExperimentKeeper
    continuous: ContinuousTuner
    jobs: JobKeeper
    events: EventStreams
    metrics: Metrics
    traces: "Traces | None"
    vocabulary: Vocabulary | None
    permits: AllPermits = field(default_factory=AllPermits)
    own_trainer: OwnTrainer = field(default_factory=OwnTrainer)


async def get_parts(request: Request) -> Parts:
    parts: Parts = request.state.parts
    return parts


# Coroutines, though they wait for nothing: plain functions would queue every search behind the thread pool of
# the routes that embed, register and load.
PartsDep = Annotated[Parts, Depends(get_parts)]


async def known_parameters(request: Request) -> None:
    """A misspelt query parameter must not pass in silence. Raises `InvalidField`."""
    if not request.query_params:
        return
    known = _parameters(request.scope["route"].dependant)
    for name in request.query_params:
        if name not in known:
            takes = likely(name, known) if known else "it takes none in its address"
            raise InvalidField(name, f"is no parameter of this call; {takes}")


def _parameters(call: Dependant) -> set[str]:
    """In the address: of a call and of all that it depends on."""
    return {each.alias for each in call.query_params}.union(*map(_parameters, call.dependencies))


async def no_body(request: Request) -> None:
    """For calls that take none: whoever sends one expects something of it. Raises `InvalidField`."""
    sent = (await request.body()).strip()
    if sent not in (b"", b"{}", b"null"):
        raise InvalidField("body", "is not read by this call, and nothing was done; leave it out.")


async def expected_generation(request: Request, if_match: Annotated[str | None, Header()] = None) -> int | None:
    """The generation in If-Match, or None. ETags are the generation in quotes."""
    if if_match is None or if_match.strip() == "*":
        return None
    value = if_match.strip().removeprefix("W/").strip('"')
    if not value.isdecimal() or len(value) > MAX_DIGITS:
        path = request.scope["route"].path_format.removesuffix("/rollback").format(**request.path_params)
        raise InvalidField("If-Match", f"{if_match!r} is not an ETag of GET {path}, such as '\"3\"'.")
    return int(value)


ExpectedGeneration = Annotated[int | None, Depends(expected_generation)]
