"""What `/passages` takes and answers."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from app.wire.common import Metadata, PublicModel, RequestModel

MAX_PASSAGES = 2_000
Id = Annotated[str, Field(min_length=1, max_length=512)]


class PassageBody(RequestModel):
    id: Id
    text: str
    title: str = ""
    metadata: Metadata = Field(default_factory=dict)


class PassagePublic(PublicModel):
    id: str
    text: str
    title: str
    metadata: Metadata


class PassagesUpsert(RequestModel):
    passages: Annotated[list[PassageBody], Field(min_length=1, max_length=MAX_PASSAGES)]
    durable: bool = Field(False, description="Answer only when the write has reached the disk.")


class PassagesUpserted(PublicModel):
    embedded: int
    metadata_updated: int
    unchanged: int


class PassagesDelete(RequestModel):
    ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)] | None = None
    filter: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "PassagesDelete":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("send either 'ids' or 'filter'")
        return self


class Deleted(PublicModel):
    deleted: int


class PassagePage(PublicModel):
    passages: list[PassagePublic]
    next_cursor: str | None


class Count(PublicModel):
    count: int
