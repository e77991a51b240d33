"""`POST /search`, `GET /search`, `POST /search/batch`."""

from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from app import retrieval
from app.api.cursor import Page, page_of, to_cursor
from app.api.deps import Parts, PartsDep
from app.api.queries import check_query, filter_parameter
from app.api.scopes import Scoped
from app.encoders.loaded import LoadedEncoder
from app.errors import InvalidField
from app.observe.logs import note, noted
from app.passages import Hit
from app.query_log import new_search_id
from app.registry import NewSearch
from app.retrieval import Answer, Draft
from app.wire.active_encoder import STICKY_KEY
from app.wire.common import EncoderKey
from app.wire.judgments import Lang
from app.wire.search import (
    MAX_BATCH_HITS,
    MAX_LIMIT,
    MAX_OFFSET,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
)

router = APIRouter(tags=["search"], route_class=Scoped)

Json = dict[str, Any]


@router.post("/search", response_model=SearchResponse, response_model_exclude_none=True)
async def search(body: SearchRequest, parts: PartsDep, request: Request) -> Response:
    """The passages nearest to the query, embedded by the active encoder or the one named."""
    check_query("query", body.query, parts.settings)
    if body.compare_to is not None:
        return await _compare(body, body.compare_to, parts, request)
    page = page_of(body)
    query = replace(_query(body, page, request), interleave=page.offset == 0 and not body.with_query_vector)
    answer = await parts.retrieval.search(query)
    search_id = _log(answer, body, page.offset, parts)
    return _json(_answer(answer, body, search_id) | _next(answer, body, page))


@router.get("/search", response_model=SearchResponse, response_model_exclude_none=True)
async def search_by_address(
    parts: PartsDep,
    request: Request,
    q: Annotated[str, Query(min_length=1)],
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    filter: Annotated[str | None, Query(description="Qdrant's filter as JSON.")] = None,
    score_threshold: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    encoder: EncoderKey | None = None,
    compare_to: EncoderKey | None = None,
    exact: bool = False,
    with_query_vector: bool = False,
    lang: Lang | None = None,
) -> Response:
    """The same for a browser and curl."""
    body = SearchRequest(
        query=q,
        limit=limit,
        offset=offset,
        cursor=cursor,
        filter=filter_parameter(filter),
        score_threshold=score_threshold,
        encoder=encoder,
        compare_to=compare_to,
        exact=exact,
        with_query_vector=with_query_vector,
        lang=lang,
    )
    return await search(body, parts, request)


@router.post("/search/batch", response_model=SearchBatchResponse, response_model_exclude_none=True)
async def search_batch(body: SearchBatchRequest, parts: PartsDep, request: Request) -> Response:
    """Several queries at once, with one encoder and one set of options: one run of the encoder for all."""
    for number, text in enumerate(body.queries):
        check_query(f"queries[{number}]", text, parts.settings)
    if len(body.queries) * body.limit > MAX_BATCH_HITS:
        raise InvalidField(
            "limit",
            f"{body.limit} hits for each of {len(body.queries)} queries are over {MAX_BATCH_HITS} in one answer; "
            "send fewer queries or a lower limit.",
        )
    answer = await parts.retrieval.search(
        retrieval.Query(
            texts=tuple(body.queries),
            limit=body.limit,
            filter=body.filter,
            score_threshold=body.score_threshold,
            encoder=body.encoder,
            exact=body.exact,
            sticky=_sticky(request),
        )
    )
    results = [
        {"hits": [_hit(hit) for hit in hits]} | ({"query_vector": vector} if body.with_query_vector else {})
        for hits, vector in zip(answer.hits, answer.query_vectors, strict=True)
    ]
    return _json({"results": results} | _made_by(answer))


def _sticky(request: Request) -> retrieval.Sticky:
    """By what a split tells requests apart: the key, or a header."""
    return lambda by: noted("key") if by == STICKY_KEY else request.headers.get(by)


def _query(body: SearchRequest, page: Page, request: Request) -> retrieval.Query:
    return retrieval.Query(
        texts=(body.query,),
        limit=body.limit,
        offset=page.offset,
        filter=body.filter,
        score_threshold=body.score_threshold,
        encoder=page.encoder,
        generation=page.generation,
        draft=page.drafted,
        exact=body.exact,
        sticky=_sticky(request),
    )


async def _compare(body: SearchRequest, other: str, parts: Parts, request: Request) -> Response:
    """Ranks count from the first hit, so a comparison has no pages."""
    if body.offset or body.cursor:
        raise InvalidField("compare_to", "ranks the first page; leave out offset and cursor, and raise limit instead.")
    ours, theirs = await parts.retrieval.compare(_query(body, page_of(body), request), other)
    ranks = {hit.id: rank for rank, hit in enumerate(theirs.hits[0], 1)}
    answer = _answer(ours, body, _log(ours, body, 0, parts))
    for hit in answer["hits"]:
        rank = ranks.get(hit["id"])
        hit |= {"new": rank is None or rank > body.limit} | ({} if rank is None else {"compared_rank": rank})
    kept = {hit.id for hit in ours.hits[0]}
    lost = [_hit(hit) | {"compared_rank": ranks[hit.id]} for hit in theirs.hits[0][: body.limit] if hit.id not in kept]
    depth = max(body.limit, retrieval.COMPARE_DEPTH)
    compared = {"encoder": _encoder(theirs.encoder, theirs.generation), "depth": depth, "lost": lost}
    return _json(answer | {"compared_to": compared})


def _next(answer: Answer, body: SearchRequest, page: Page) -> Json:
    """A full page may have a next one; it begins where this one ends."""
    end = page.offset + body.limit
    if len(answer.hits[0]) < body.limit or end > MAX_OFFSET:
        return {}
    drafted = Draft(answer.drafted.other.record.key, answer.drafted.seed) if answer.drafted else None
    return {"next_cursor": to_cursor(body, answer.encoder.record.key, answer.generation, end, drafted)}


def _log(answer: Answer, body: SearchRequest, offset: int, parts: Parts) -> str:
    """The id of this search, kept with what is shown if it is one of those that the query log keeps."""
    search_id = new_search_id()
    if parts.query_log.keeps(search_id):
        search = NewSearch(
            search_id=search_id,
            key=noted("key"),
            query=body.query,
            lang=body.lang,
            filter=body.filter,
            encoder=answer.encoder.record.key,
            generation=answer.generation,
            offset=offset,
            shown=[hit.id for hit in answer.hits[0]],
            rule=answer.rule,
            teams=answer.drafted.teams if answer.drafted else None,
            unit=answer.unit,
        )
        parts.query_log.offer(search)
    return search_id


def _answer(answer: Answer, body: SearchRequest, search_id: str) -> Json:
    vector = {"query_vector": answer.query_vectors[0]} if body.with_query_vector else {}
    return {"search_id": search_id, "hits": [_hit(hit) for hit in answer.hits[0]]} | _made_by(answer) | vector


def _made_by(answer: Answer) -> Json:
    """Who made the answer; the request's line in the log says it too."""
    note(encoder=answer.encoder.record.key, generation=answer.generation, rule=answer.rule)
    took = {"encode": answer.encode_ms, "search": answer.search_ms, "total": answer.total_ms}
    other = answer.drafted and answer.drafted.other
    return {
        "encoder": _encoder(answer.encoder, answer.generation),
        **({"interleaved_with": _encoder(other, answer.generation)} if other else {}),
        "rule": answer.rule,
        "took_ms": {name: round(ms, 3) for name, ms in took.items()},
    }


def _encoder(encoder: LoadedEncoder, generation: int | None) -> Json:
    record = encoder.record
    return {
        "name": record.name,
        "version": record.version,
        "digest": record.digest,
        "generation": generation,
    }


def _hit(hit: Hit) -> Json:
    passage = hit.passage
    return {
        "id": hit.id,
        "score": hit.score,
        "title": passage.title,
        "text": passage.text,
        "metadata": passage.metadata,
    }


def _json(body: Json) -> Response:
    """Straight to bytes: building wire models for 1,000 hits costs more than finding them."""
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
