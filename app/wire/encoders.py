"""What `/encoders` takes and answers."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from app.wire.common import Name, PublicModel, RequestModel


class EncoderSource(RequestModel):
    path: str | None = None
    job: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "EncoderSource":
        if (self.path is None) == (self.job is None):
            raise ValueError("send either 'path' (a folder) or 'job' (a tuning job's id)")
        return self


class EncoderCreate(RequestModel):
    name: Name
    source: EncoderSource
    description: Annotated[str, Field(max_length=4_000)] = ""
    labels: dict[str, str] = Field(default_factory=dict, max_length=32)
    force: bool = False


class Lineage(PublicModel):
    base: str | None
    parent: str | None
    digest: str


class EncoderPublic(PublicModel):
    name: str
    version: int
    digest: str
    lineage: Lineage
    admission: str
    state: str
    active: bool
    size_bytes: int
    description: str
    labels: dict[str, str]
    metrics: dict[str, Any]
    checks: list[dict[str, Any]]
    created_at: float
    versions: list[int] | None = None


class EncoderList(PublicModel):
    encoders: list[EncoderPublic]
