"""`/passages`: upsert, read, browse, count, delete."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.deps import PartsDep
from app.errors import InvalidField, PassageNotFound
from app.passages import Passage, parse_filter
from app.wire.passages import (
    Count,
    Deleted,
    PassagePage,
    PassagePublic,
    PassagesDelete,
    PassagesUpsert,
    PassagesUpserted,
)

router = APIRouter(prefix="/passages", tags=["passages"])


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


@router.get("/{passage_id:path}", response_model=PassagePublic)
def read_passage(passage_id: str, parts: PartsDep) -> PassagePublic:
    found = parts.store.fetch([passage_id])
    if not found:
        raise PassageNotFound(f"No passage has the id {passage_id!r}.")
    return _public(found[0].passage)


@router.delete("/{passage_id:path}", status_code=204)
def delete_passage(passage_id: str, parts: PartsDep) -> Response:
    if parts.store.delete([passage_id]) == 0:
        raise PassageNotFound(f"No passage has the id {passage_id!r}.")
    return Response(status_code=204)


def _public(passage: Passage) -> PassagePublic:
    return PassagePublic(id=passage.id, text=passage.text, title=passage.title, metadata=passage.metadata)
