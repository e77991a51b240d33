"""`POST /search` and `GET /search`."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Response

from app import retrieval
from app.api.deps import PartsDep
from app.errors import InvalidField
from app.ingest import check_unicode
from app.retrieval import Answer
from app.wire.common import EncoderKey
from app.wire.search import MAX_LIMIT, MAX_OFFSET, SearchRequest, SearchResponse

router = APIRouter(tags=["search"])


@router.post("/search", response_model=SearchResponse, response_model_exclude_none=True)
async def search(body: SearchRequest, parts: PartsDep) -> Response:
    """The passages nearest to the query, embedded by the active encoder or the one named."""
    return await _search(body, parts)


@router.get("/search", response_model=SearchResponse, response_model_exclude_none=True)
async def search_by_address(
    parts: PartsDep,
    q: Annotated[str, Query(min_length=1)],
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    filter: Annotated[str | None, Query(description="Qdrant's filter as JSON.")] = None,
    score_threshold: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    encoder: EncoderKey | None = None,
    exact: bool = False,
    with_query_vector: bool = False,
) -> Response:
    """The same for a browser and curl."""
    body = SearchRequest(
        query=q,
        limit=limit,
        offset=offset,
        filter=_parse_filter(filter),
        score_threshold=score_threshold,
        encoder=encoder,
        exact=exact,
        with_query_vector=with_query_vector,
    )
    return await _search(body, parts)


def _parse_filter(given: str | None) -> dict[str, Any] | None:
    if given is None:
        return None
    try:
        found = orjson.loads(given)
    except ValueError as error:
        raise InvalidField("filter", f"is not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InvalidField("filter", 'is not an object such as {"must": [{"key": "lang", "match": {"value": "de"}}]}.')
    return found


async def _search(body: SearchRequest, parts: PartsDep) -> Response:
    _check_query(body.query, parts.settings.max_query_chars)
    answer = await parts.retrieval.search(
        retrieval.Query(
            text=body.query,
            limit=body.limit,
            offset=body.offset,
            filter=body.filter,
            score_threshold=body.score_threshold,
            encoder=body.encoder,
            exact=body.exact,
        )
    )
    return Response(_serialise(answer, body.with_query_vector), media_type="application/json")


def _check_query(query: str, max_chars: int) -> None:
    if not query.strip():
        raise InvalidField("query", "is empty; send the words to search for.")
    if len(query) > max_chars:
        raise InvalidField("query", f"has {len(query)} characters, the limit is {max_chars} (ADIABAT_MAX_QUERY_CHARS).")
    check_unicode("query", query)


def _serialise(answer: Answer, with_query_vector: bool) -> bytes:
    """Straight to bytes: building wire models for 1,000 hits costs more than finding them."""
    record = answer.encoder.record
    body: dict[str, Any] = {
        "hits": [
            {
                "id": hit.id,
                "score": hit.score,
                "title": hit.passage.title,
                "text": hit.passage.text,
                "metadata": hit.passage.metadata,
            }
            for hit in answer.hits
        ],
        "encoder": {
            "name": record.name,
            "version": record.version,
            "digest": record.digest,
            "generation": answer.generation,
        },
        "took_ms": {
            "encode": round(answer.encode_ms, 3),
            "search": round(answer.search_ms, 3),
            "total": round(answer.total_ms, 3),
        },
    }
    if with_query_vector:
        body["query_vector"] = answer.query_vector
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
