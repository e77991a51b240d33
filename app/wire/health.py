"""What `/health/*` and `/version` takes and answers."""

from typing import Literal

from app.wire.common import EncoderUsed, PublicModel


class Live(PublicModel):
    status: Literal["live"] = "live"


class Ready(PublicModel):
    status: Literal["ready", "not-ready"]
    encoder: EncoderUsed | None = None
    passages: int | None = None
    indexing: bool | None = None
    trainer: str
    notes: list[str]


class Version(PublicModel):
    version: str
