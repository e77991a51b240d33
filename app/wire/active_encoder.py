"""What `/active-encoder` takes and answers."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.wire.common import EncoderUsed, Name, PublicModel, RequestModel


class Activate(RequestModel):
    name: Name
    version: Annotated[int, Field(ge=1, le=10**9)] | None = None
    force: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "base", "version": 1}]})


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
    fallback_reason: str | None = None
    replicas: Replicas | None = None  # None while the registry does not answer


class SwitchedPublic(PublicModel):
    encoder: EncoderUsed
    previous: EncoderNamed | None = None
    swap: Swap
    replicas: Replicas


class ActivationPublic(PublicModel):
    generation: int
    encoder: str
    digest: str
    reason: str
    forced: bool
    at: float


class History(PublicModel):
    activations: list[ActivationPublic]
