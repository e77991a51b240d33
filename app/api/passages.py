"""`/passages`: upsert, read, browse, count, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator

from app.api.deps import PartsDep
from app.api.models import Metadata, Wire
from app.errors import InvalidField, PassageNotFound
from app.passages import Passage, parse_filter

router = APIRouter(prefix="/passages", tags=["passages"])

MAX_PASSAGES = 2_000
Id = Annotated[str, Field(min_length=1, max_length=512)]


class PassageBody(Wire):
    id: Id
    text: str
    title: str = ""
    metadata: Metadata = Field(default_factory=dict)


class PassagesUpsert(Wire):
    passages: Annotated[list[PassageBody], Field(min_length=1, max_length=MAX_PASSAGES)]
    durable: bool = Field(False, description="Answer only when the write has reached the disk.")


class PassagesUpserted(Wire):
    embedded: int
    metadata_updated: int
    unchanged: int


class PassagesDelete(Wire):
    ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)] | None = None
    filter: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "PassagesDelete":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("send either 'ids' or 'filter'")
        return self


class Deleted(Wire):
    deleted: int


class PassagePage(Wire):
    passages: list[PassageBody]
    next_cursor: str | None


class Count(Wire):
    count: int


@router.post("", response_model=PassagesUpserted)
def upsert_passages(body: PassagesUpsert, parts: PartsDep) -> PassagesUpserted:
    """Add or replace passages. What did not change is not embedded again."""
    passages = [Passage(id=p.id, text=p.text, title=p.title, metadata=p.metadata) for p in body.passages]
    done = parts.ingest.upsert(passages, durable=body.durable)
    return PassagesUpserted(embedded=done.embedded, metadata_updated=done.metadata_updated, unchanged=done.unchanged)


@router.get("", response_model=PassagePage)
def list_passages(
    parts: PartsDep, cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> PassagePage:
    """All passages, a page at a time; `next_cursor` leads to the next page and is null on the last."""
    found, next_cursor = parts.store.page(cursor, limit)
    return PassagePage(passages=[_public(item.passage) for item in found], next_cursor=next_cursor)


@router.get("/count", response_model=Count)
def count_passages(parts: PartsDep) -> Count:
    return Count(count=parts.store.count())


@router.post("/delete", response_model=Deleted)
def delete_passages(body: PassagesDelete, parts: PartsDep) -> Deleted:
    """Delete by ids or by filter. An empty filter would mean everything and is refused."""
    if body.ids is not None:
        return Deleted(deleted=parts.store.delete(body.ids))
    conditions = parse_filter(body.filter)
    if not body.filter or conditions is None:
        raise InvalidField("filter", "is empty, which would delete everything; name the ids or a condition.")
    return Deleted(deleted=parts.store.delete_by_filter(conditions))


@router.get("/{passage_id:path}", response_model=PassageBody)
def read_passage(passage_id: str, parts: PartsDep) -> PassageBody:
    found = parts.store.fetch([passage_id])
    if not found:
        raise PassageNotFound(f"No passage has the id {passage_id!r}.")
    return _public(found[0].passage)


@router.delete("/{passage_id:path}", status_code=204)
def delete_passage(passage_id: str, parts: PartsDep) -> Response:
    if parts.store.delete([passage_id]) == 0:
        raise PassageNotFound(f"No passage has the id {passage_id!r}.")
    return Response(status_code=204)


def _public(passage: Passage) -> PassageBody:
    return PassageBody(id=passage.id, text=passage.text, title=passage.title, metadata=passage.metadata)
