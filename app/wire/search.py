"""What `/search` takes and answers."""

from typing import Annotated, Any

from pydantic import Field

from app.wire.common import EncoderKey, EncoderUsed, Metadata, PublicModel, RequestModel

MAX_LIMIT = 1000
MAX_OFFSET = 100_000


class SearchRequest(RequestModel):
    query: Annotated[str, Field(min_length=1)]
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] = 0
    filter: dict[str, Any] | None = None
    score_threshold: Annotated[float | None, Field(allow_inf_nan=False)] = None
    encoder: EncoderKey | None = None
    exact: bool = False
    with_query_vector: bool = False


class HitPublic(PublicModel):
    id: str
    score: float
    title: str
    text: str
    metadata: Metadata


class Took(PublicModel):
    encode: float
    search: float
    total: float


class SearchResponse(PublicModel):
    hits: list[HitPublic]
    encoder: EncoderUsed
    took_ms: Took
    query_vector: list[float] | None = None
