"""`POST /search`, `GET /search`, `POST /search/batch`."""

from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from app import retrieval
from app.api.cursor import page_of, to_cursor
from app.api.deps import Parts, PartsDep
from app.api.queries import check_query, filter_parameter
from app.api.scopes import Scoped
from app.encoders.loaded import LoadedEncoder
from app.encoders.routes import Asked
from app.errors import InvalidField
from app.observe.logs import note, noted
from app.passages import Hit
from app.passages.fusion import DEPTH
from app.passages.grouping import group, to_path
from app.query_log import new_search_id
from app.registry import NewSearch
from app.retrieval import Answer, Began, Draft
from app.wire.active_encoder import STICKY_KEY
from app.wire.common import EncoderKey, Name
from app.wire.judgments import Lang
from app.wire.search import (
    GROUP_SIZE,
    MAX_BATCH_HITS,
    MAX_FIELD_CHARS,
    MAX_LIMIT,
    MAX_OFFSET,
    Mode,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
)

router = APIRouter(tags=["search"], route_class=Scoped)

Json = dict[str, Any]


@router.post("/search", response_model=SearchResponse, response_model_exclude_none=True)
async def search(body: SearchRequest, parts: PartsDep, request: Request) -> Response:
    """The passages nearest to the query, embedded by the encoder that is named, that of a route, or the
    active one; or by words, or by both."""
    check_query("query", body.query, parts.settings)
    grouped = body.group_by is not None or body.group_size is not None
    if grouped:
        _check_groups(body)
    offset, began = page_of(body)
    _check_mode(body, offset)
    query = _query(body, offset, began, request)
    if grouped:
        return await _grouped(body, query, parts)
    if body.compare_to is not None:
        return await _compare(body, query, body.compare_to, parts)
    if body.mode == "dense" and offset == 0 and not body.with_query_vector:
        query = replace(query, interleave=True)
    answer = await parts.retrieval.search(query)
    search_id = _log(answer, body, offset, parts)
    told = _answer(answer, body, search_id) | _next(answer, body, offset)
    if body.explain or body.highlight:
        await _tell_more(told, answer, query, body, parts)
    return _json(told)


@router.get("/search", response_model=SearchResponse, response_model_exclude_none=True)
async def search_by_address(
    parts: PartsDep,
    request: Request,
    q: Annotated[str, Query(min_length=1)],
    mode: Mode = "dense",
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    filter: Annotated[str | None, Query(description="Qdrant's filter as JSON.")] = None,
    score_threshold: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    encoder: EncoderKey | None = None,
    route: Name | None = None,
    compare_to: EncoderKey | None = None,
    exact: bool = False,
    with_query_vector: bool = False,
    explain: bool = False,
    highlight: bool = False,
    lang: Lang | None = None,
    group_by: Annotated[str | None, Query(min_length=1, max_length=MAX_FIELD_CHARS)] = None,
    group_size: Annotated[int | None, Query(ge=1, le=MAX_LIMIT)] = None,
) -> Response:
    """The same for a browser and curl."""
    body = SearchRequest(
        query=q,
        mode=mode,
        limit=limit,
        offset=offset,
        cursor=cursor,
        filter=filter_parameter(filter),
        score_threshold=score_threshold,
        encoder=encoder,
        route=route,
        compare_to=compare_to,
        exact=exact,
        with_query_vector=with_query_vector,
        explain=explain,
        highlight=highlight,
        lang=lang,
        group_by=group_by,
        group_size=group_size,
    )
    return await search(body, parts, request)


@router.post("/search/batch", response_model=SearchBatchResponse, response_model_exclude_none=True)
async def search_batch(body: SearchBatchRequest, parts: PartsDep, request: Request) -> Response:
    """Several queries at once, with one encoder and one set of options: one run of the encoder for all."""
    _check_encoderless(body, "encoder", "route", "with_query_vector")
    _check_one_names(body)
    if body.mode != "dense":
        _check_depth(body.limit)
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
            mode=body.mode,
            limit=body.limit,
            filter=body.filter,
            score_threshold=body.score_threshold,
            encoder=body.encoder,
            asked=_asked(body),
            exact=body.exact,
            sticky=_sticky(request, body.mode),
        )
    )
    results: list[Json] = [{"hits": [_hit(hit) for hit in hits]} for hits in answer.hits]
    if body.with_query_vector:
        for result, vector in zip(results, answer.query_vectors, strict=True):
            result["query_vector"] = vector
    return _json({"results": results, "mode": body.mode} | _made_by(answer))


def _check_mode(body: SearchRequest, offset: int) -> None:
    """Raises `InvalidField` for what the mode has no place for."""
    _check_encoderless(body, "encoder", "route", "compare_to", "with_query_vector")
    _check_one_names(body)
    if (body.mode != "dense" or body.explain) and not body.cursor:
        _check_depth(body.limit, offset)


def _check_one_names(body: SearchRequest | SearchBatchRequest) -> None:
    if body.route and body.encoder:
        raise InvalidField("route", "and encoder both say who answers; leave one of them out.")


def _check_depth(limit: int, offset: int = 0) -> None:
    if offset + limit > DEPTH:
        raise InvalidField(
            "limit", f"and offset reach hit {offset + limit}; the modes lexical and hybrid, and explain, go to {DEPTH}."
        )


def _check_encoderless(body: SearchRequest | SearchBatchRequest, *fields: str) -> None:
    if body.mode != "lexical":
        return
    for field in fields:
        if getattr(body, field):
            raise InvalidField(field, "has no place in mode lexical, where no encoder has a part; ask in another mode.")


def _check_groups(body: SearchRequest) -> None:
    """Raises `InvalidField` for what groups cannot be combined with."""
    size = body.group_size or GROUP_SIZE
    if body.group_by is None:
        raise InvalidField("group_size", "has no place without group_by; name the field of the metadata to group by.")
    if body.offset or body.cursor:
        raise InvalidField("group_by", "has no pages: leave out offset and cursor, and raise limit instead.")
    if body.compare_to:
        raise InvalidField("group_by", "cannot be compared; leave out compare_to, and ask each encoder for its groups.")
    if body.limit * size > MAX_LIMIT:
        raise InvalidField(
            "limit", f"{body.limit} groups of {size} hits are over {MAX_LIMIT} hits in one answer; lower one of them."
        )


def _sticky(request: Request, mode: Mode) -> retrieval.Sticky:
    """By what a split tells requests apart: the key, or a header."""
    if mode == "lexical":
        return retrieval.nobody
    return lambda by: noted("key") if by == STICKY_KEY else request.headers.get(by)


def _asked(body: SearchRequest | SearchBatchRequest) -> Asked:
    return Asked(route=body.route, lang=body.lang, key=noted("key"))


def _query(body: SearchRequest, offset: int, began: Began | None, request: Request) -> retrieval.Query:
    return retrieval.Query(
        texts=(body.query,),
        mode=body.mode,
        limit=body.limit,
        offset=offset,
        filter=body.filter,
        score_threshold=body.score_threshold,
        encoder=body.encoder,
        asked=_asked(body),
        began=None if body.mode == "lexical" else began,
        exact=body.exact,
        sticky=_sticky(request, body.mode),
    )


async def _tell_more(told: Json, answer: Answer, query: retrieval.Query, body: SearchRequest, parts: Parts) -> None:
    """Add to `told` what is told of each hit where it was asked for."""
    if body.highlight:
        for hit, spans in zip(told["hits"], await parts.retrieval.highlight(query, answer), strict=True):
            hit["highlights"] = spans
    if not body.explain:
        return
    found = await parts.retrieval.explain(query, answer)
    rankings = {"dense": found.dense, "lexical": found.lexical or {}, "base": found.by_base}
    for hit in told["hits"]:
        hit["explain"] = {name: places[hit["id"]]._asdict() for name, places in rankings.items() if hit["id"] in places}
    base = _encoder(found.base, None)
    told["explained"] = {"depth": DEPTH, "base": base, "lexical": found.lexical is not None}


async def _grouped(body: SearchRequest, query: retrieval.Query, parts: Parts) -> Response:
    """Each hit is told in every group that it is in, and counts once: for the query log, whose places go on from group
    to group."""
    path = to_path(body.group_by or "")
    answer = await parts.retrieval.search(replace(query, limit=DEPTH))
    groups = group(answer.hits[0], path, body.limit, body.group_size or GROUP_SIZE)
    looked_at = len(answer.hits[0])
    answer = replace(answer, hits=[list({hit.id: hit for each in groups for hit in each.hits}.values())])
    told = _answer(answer, body, _log(answer, body, 0, parts))
    if body.explain or body.highlight:
        await _tell_more(told, answer, query, body, parts)
    hits = {hit["id"]: hit for hit in told["hits"]}
    shown = [{"id": each.value, "hits": [hits[hit.id] for hit in each.hits]} for each in groups]
    return _json(told | {"hits": [], "groups": shown, "grouped_from": looked_at})


async def _compare(body: SearchRequest, query: retrieval.Query, other: str, parts: Parts) -> Response:
    """Ranks count from the first hit, so a comparison has no pages."""
    if body.offset or body.cursor:
        raise InvalidField("compare_to", "ranks the first page; leave out offset and cursor, and raise limit instead.")
    ours, theirs = await parts.retrieval.compare(query, other)
    ranks = {hit.id: rank for rank, hit in enumerate(theirs.hits[0], 1)}
    answer = _answer(ours, body, _log(ours, body, 0, parts))
    for hit in answer["hits"]:
        rank = ranks.get(hit["id"])
        hit |= {"new": rank is None or rank > body.limit} | ({} if rank is None else {"compared_rank": rank})
    kept = {hit.id for hit in ours.hits[0]}
    lost = [_hit(hit) | {"compared_rank": ranks[hit.id]} for hit in theirs.hits[0][: body.limit] if hit.id not in kept]
    depth = max(body.limit, retrieval.COMPARE_DEPTH)
    compared = {"encoder": _encoder(theirs.encoder, theirs.generation), "depth": depth, "lost": lost}
    told = answer | {"compared_to": compared}
    if body.explain or body.highlight:
        await _tell_more(told, ours, query, body, parts)
    return _json(told)


def _next(answer: Answer, body: SearchRequest, offset: int) -> Json:
    """A full page may have a next one; it begins where this one ends."""
    end = offset + body.limit
    far = MAX_OFFSET if body.mode == "dense" and not answer.drafted else DEPTH - 1
    if len(answer.hits[0]) < body.limit or end > far:
        return {}
    drafted = Draft(answer.drafted.other.record.key, answer.drafted.seed) if answer.drafted else None
    began = Began(answer.encoder.record.key, answer.generation, answer.rule, answer.route, drafted)
    return {"next_cursor": to_cursor(body, end, began)}


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
            mode=body.mode,
            rule=answer.rule,
            route=answer.route,
            teams=answer.drafted.teams if answer.drafted else None,
            unit=answer.unit,
        )
        parts.query_log.offer(search)
    return search_id


def _answer(answer: Answer, body: SearchRequest, search_id: str) -> Json:
    vector = {"query_vector": answer.query_vectors[0]} if body.with_query_vector else {}
    hits = [_hit(hit) for hit in answer.hits[0]]
    return {"search_id": search_id, "hits": hits, "mode": body.mode} | _made_by(answer) | vector


def _made_by(answer: Answer) -> Json:
    """Who made the answer; the request's line in the log says it too."""
    routed = {"route": answer.route} if answer.route else {}
    note(encoder=answer.encoder.record.key, generation=answer.generation, rule=answer.rule)
    if answer.route:
        note(search_route=answer.route)  # `route` is that of HTTP
    took = {"encode": answer.encode_ms, "search": answer.search_ms, "total": answer.total_ms}
    other = answer.drafted and answer.drafted.other
    return {
        "encoder": _encoder(answer.encoder, answer.generation),
        **({"interleaved_with": _encoder(other, answer.generation)} if other else {}),
        "rule": answer.rule,
        **routed,
        "took_ms": {name: round(ms, 3) for name, ms in took.items()},
    }


def _encoder(encoder: LoadedEncoder, generation: int | None) -> Json:
    record = encoder.record
    return {"name": record.name, "version": record.version, "digest": record.digest, "generation": generation}


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
