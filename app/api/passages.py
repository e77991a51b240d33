"""`/passages`: upsert, read, browse, count, delete."""

from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.routing import Match
from starlette.types import Scope

from app.api.deps import PartsDep
from app.api.limits import NDJSON, content_type, is_ndjson
from app.api.queries import filter_parameter
from app.api.scopes import Scoped
from app.errors import InvalidField, PassageNotFound
from app.passages import Passage, StoredPassage, has_condition, parse_filter
from app.registry import Action
from app.wire.passages import (
    NDJSON_EXAMPLE,
    Count,
    Deleted,
    PassageListed,
    PassagePage,
    PassagePublic,
    PassagesDelete,
    PassagesStreamed,
    PassagesUpsert,
    PassagesUpserted,
)

MAX_AUDITED_IDS = 20  # of a deletion by ids; `deleted` counts all
MAX_AUDITED_BYTES = 2_000

router = APIRouter(prefix="/passages", tags=["passages"], route_class=Scoped)

Filter = Annotated[str | None, Query(description="Qdrant's filter as JSON; keys address the metadata.")]


class NdjsonRoute(Scoped):
    """Takes bodies of lines, and leaves the others to the next route of the same path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if is_ndjson(content_type(scope)) else (Match.NONE, {})


async def stream_passages(request: Request, parts: PartsDep) -> PassagesStreamed:
    """What `upsert_passages` says of NDJSON."""
    taken = await parts.intake.take(request.stream())
    return PassagesStreamed.model_validate(asdict(taken))


# Described with the JSON body: an API's description has one operation to a path and method.
router.add_api_route("", stream_passages, methods=["POST"], route_class_override=NdjsonRoute, include_in_schema=False)


@router.post(
    "",
    response_model=PassagesUpserted | PassagesStreamed,
    openapi_extra={
        "requestBody": {
            "content": {
                NDJSON: {
                    "schema": {"type": "string", "description": "One passage to a line, as in `passages` of the JSON."},
                    "examples": {"lines": {"value": NDJSON_EXAMPLE}},
                }
            }
        }
    },
)
def upsert_passages(body: PassagesUpsert, parts: PartsDep) -> PassagesUpserted:
    """Add or replace passages. What did not change is not embedded again.

    JSON is taken whole or refused whole, and an id twice is refused. `application/x-ndjson` streams any number of
    lines, each a passage (`_id` may stand for `id`); only the single line has a limit, ADIABAT_MAX_BODY_BYTES. They
    are stored while they arrive, so what came before a broken connection stays stored. Of a repeated id the last line
    wins. A bad line is told by its number and stops nothing. The answer comes when all is on disk; a refusal half-way
    says up to which line everything is stored (`stored_through_line`), and sending all lines again does no harm.
    """
    passages = [Passage(id=p.id, text=p.text, title=p.title, metadata=p.metadata) for p in body.passages]
    with parts.permits.upserts.one():
        done = parts.ingest.upsert(passages, durable=body.durable)
    return PassagesUpserted(embedded=done.embedded, metadata_updated=done.metadata_updated, unchanged=done.unchanged)


@router.get("", response_model=PassagePage, response_model_exclude_unset=True)
def list_passages(
    parts: PartsDep,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    filter: Filter = None,
    with_vectors: bool = False,
) -> PassagePage:
    """All passages, or those that the filter lets through, a page at a time in an order that does not change.

    `next_cursor` leads to the next page and is null on the last.
    """
    found, next_cursor = parts.store.page(cursor, limit, parse_filter(filter_parameter(filter)), with_vectors)
    return PassagePage(passages=[_listed(item) for item in found], next_cursor=next_cursor)


@router.get("/count", response_model=Count)
def count_passages(parts: PartsDep, filter: Filter = None) -> Count:
    """How many passages there are, or how many the filter lets through."""
    return Count(count=parts.store.count(parse_filter(filter_parameter(filter))))


@router.post("/delete", response_model=Deleted)
def delete_passages(body: PassagesDelete, parts: PartsDep) -> Deleted:
    """Delete by ids or by filter; `deleted` counts those that were there. An empty filter is refused: it would mean
    everything.
    """
    if body.ids is not None:
        deleted, named = parts.store.delete(body.ids), body.ids[:MAX_AUDITED_IDS]
        parts.registry.audit.write(Action.PASSAGES_DELETED, "by ids", deleted=deleted, ids=named)
        return Deleted(deleted=deleted)
    conditions = parse_filter(body.filter)
    if conditions is None or not has_condition(conditions):
        raise InvalidField("filter", "has no condition, which would delete everything; name the ids or a condition.")
    deleted = parts.store.delete_by_filter(conditions)
    parts.registry.audit.write(Action.PASSAGES_DELETED, "by filter", deleted=deleted, filter=_briefly(body.filter))
    return Deleted(deleted=deleted)


@router.get("/{passage_id:path}", response_model=PassagePublic)
def read_passage(passage_id: str, parts: PartsDep) -> PassagePublic:
    """One passage; its id percent-encoded, slashes too."""
    found = parts.store.fetch([passage_id])
    if not found:
        raise PassageNotFound(f"No passage has the id {passage_id!r}; GET /passages lists them.")
    return _public(found[0].passage)


@router.delete("/{passage_id:path}", status_code=204)
def delete_passage(passage_id: str, parts: PartsDep) -> Response:
    """Delete one passage by its id."""
    if parts.store.delete([passage_id]) == 0:
        raise PassageNotFound(f"No passage has the id {passage_id!r}; GET /passages lists them.")
    parts.registry.audit.write(Action.PASSAGES_DELETED, passage_id, deleted=1)
    return Response(status_code=204)


def _briefly(filter: dict[str, Any] | None) -> dict[str, Any] | str:
    """For the audit log, where a filter of any length has no place."""
    written = orjson.dumps(filter)
    return filter or {} if len(written) <= MAX_AUDITED_BYTES else written[:MAX_AUDITED_BYTES].decode(errors="ignore")


def _listed(item: StoredPassage) -> PassageListed:
    told = asdict(item.passage)
    return PassageListed(**told) if item.vector is None else PassageListed(**told, vector=item.vector.tolist())


def _public(passage: Passage) -> PassagePublic:
    return PassagePublic(id=passage.id, text=passage.text, title=passage.title, metadata=passage.metadata)
