"""What `/active-encoder` takes and answers."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from app.plainly import given, plainly
from app.wire.common import EncoderUsed, Name, PublicModel, RequestModel

STICKY_KEY = "key"


def _alone(value: Any) -> Any:
    if isinstance(value, str) and "@" in value:
        raise ValueError(
            f'must be the name alone, with its version beside it, as "name": "bees", "version": 1, not {given(value)}'
        )
    return value


NamedAlone = Annotated[Name, BeforeValidator(_alone)]
Version = Annotated[int, Field(ge=1, le=10**9)]


class CanaryRules(RequestModel):
    """What ends a canary by itself, each compared with the active encoder over the same time; null: not that."""

    alpha: Annotated[
        float, Field(gt=0, le=0.5, description="Error rate of the test on clicks, over all looks together.")
    ] = 0.05
    min_requests: Annotated[int, Field(ge=20, le=10**9, description="Of either encoder, before any rule acts.")] = 100
    window_s: Annotated[
        float, Field(ge=60, le=86_400, description="What the rules but that on clicks look back on, by whole minutes.")
    ] = 600
    clicks: Annotated[bool, Field(description="It ends when the test on clicks says that it is worse.")] = True
    zero_hits: Annotated[
        float | None, Field(ge=0, le=1, description="By how much its share of searches without a hit may be greater.")
    ] = 0.05
    errors: Annotated[float | None, Field(ge=0, le=1, description="The same of searches that fail.")] = 0.02
    latency: Annotated[
        float | None, Field(ge=1, le=1000, description="How many times as long a search may take, in the mean.")
    ] = 3
    score_shift: Annotated[
        float | None,
        Field(gt=0, le=2, description="How far the mean score of its best hits may lie from the other's, either way."),
    ] = None


class CanaryTerms(RequestModel):
    """Which requests a canary answers, and what ends it."""

    percent: Annotated[float, Field(gt=0, le=100, description="Under 100, but where both answer together.")]
    sticky_by: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$"),
        plainly("must be 'key' or the name of a header, such as 'X-User-Id'"),
        Field(description="What tells requests apart: `key`, or a header's name. One without stays on the active."),
    ] = STICKY_KEY
    interleave: Annotated[
        bool,
        Field(
            description="Both answer those requests together, their hits in turns (team draft): clicks tell sooner "
            "which is preferred."
        ),
    ] = False
    rules: Annotated[
        CanaryRules | None,
        Field(description="What ends it by itself; null: nothing does.", default_factory=CanaryRules),
    ]

    @model_validator(mode="after")
    def _not_all(self) -> Self:
        if self.percent == 100 and not self.interleave:
            raise ValueError("percent 100 leaves nothing to compare with: activate the encoder, or set interleave")
        return self


class EncoderWanted(RequestModel):
    name: NamedAlone
    version: Version | None = None


class CanaryCreate(CanaryTerms, EncoderWanted):
    """Another encoder for a part of the requests that name none: for the same ones again and again."""


class Activate(RequestModel):
    """The encoder that is to be active, or a canary beside the one that is; whatever comes next ends the canary."""

    name: NamedAlone | None = None
    version: Version | None = None
    canary: CanaryCreate | None = None
    force: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "base", "version": 1}]},
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.name is None) == (self.canary is None) or (self.canary and self.version):
            raise ValueError("name the encoder to switch to, or a canary beside the active one: one of them")
        return self


class CanaryPublic(PublicModel):
    encoder: Annotated[str, Field(description="name@version")]
    percent: float
    sticky_by: str
    interleave: bool = False
    rules: CanaryRules | None = None


class EncoderNamed(PublicModel):
    name: str
    version: int
    digest: str


class Swap(PublicModel):
    load_ms: float
    warmup_ms: float
    switch_us: float


class ReplicaBehind(PublicModel):
    """A live replica that still answers with an older generation; `reason` says why it cannot take up the newest."""

    name: str
    generation: int
    reason: str | None = None


class Replicas(PublicModel):
    live: int
    switched: int
    behind: list[ReplicaBehind]


class ActiveEncoder(PublicModel):
    encoder: EncoderUsed
    previous: EncoderNamed | None = None
    canary: CanaryPublic | None = None
    fallback_reason: str | None = None
    replicas: Replicas | None = None  # None while the registry does not answer


class SwitchedPublic(PublicModel):
    encoder: EncoderUsed
    previous: EncoderNamed | None = None
    canary: CanaryPublic | None = None
    swap: Swap
    replicas: Replicas


class ActivationPublic(PublicModel):
    generation: int
    encoder: str
    digest: str
    reason: str
    forced: bool
    at: float
    canary: CanaryPublic | None = None
    note: Annotated[str | None, Field(description="Why the service did it by itself: the rule, in words.")] = None


class History(PublicModel):
    activations: list[ActivationPublic]
