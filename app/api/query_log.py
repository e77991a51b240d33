"""`/feedback`: what was clicked. `/queries`: the query log, and a way out of it."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from app.api.deps import Parts, PartsDep
from app.api.queries import sequence_cursor
from app.api.scopes import Scoped
from app.encoders.replicas import Alone
from app.errors import SearchNotFound
from app.query_log import WRITE_S
from app.registry import LoggedSearch
from app.wire.queries import FeedbackCreate, FeedbackPublic, SearchId, SearchLogged, SearchLogPage

router = APIRouter(tags=["feedback"], route_class=Scoped)


@router.post("/feedback", response_model=FeedbackPublic)
async def feedback(body: FeedbackCreate, parts: PartsDep) -> FeedbackPublic:
    """Say which hits of a search were clicked, by the `search_id` of its answer.

    Taken for what the query log keeps (`ADIABAT_QUERY_LOG`), and checked against what that search showed: all of it is
    stored when this answers, or nothing. The same click again changes nothing. From clicks, with the bias of their
    positions taken out, come pairs of the built-in dataset `judgments`; what was judged explicitly counts before them.
    """
    parts.query_log.require_kept(body.search_id)
    try:
        return await run_in_threadpool(_store, body, parts)
    except SearchNotFound:
        if isinstance(parts.replicas, Alone):
            raise
    await asyncio.sleep(2 * WRITE_S)  # another replica answered the search and may not have written it down
    return await run_in_threadpool(_store, body, parts)


@router.get("/queries", response_model=SearchLogPage, response_model_exclude_none=True)
def list_queries(
    parts: PartsDep,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    since: Annotated[float | None, Query(allow_inf_nan=False, description="In seconds since 1970.")] = None,
    key: Annotated[str | None, Query(description="Only those that came with the key of this name.")] = None,
) -> SearchLogPage:
    """The query log, newest first, a page at a time; `next_cursor` is absent on the last."""
    parts.query_log.flush()
    found = parts.registry.queries.page(limit + 1, before=sequence_cursor(cursor), since=since, key=key)
    page = found[:limit]
    return SearchLogPage(
        searches=[_public(each) for each in page],
        count=parts.registry.queries.count(),
        share=parts.query_log.share,
        next_cursor=str(page[-1].sequence) if len(found) > limit else None,
    )


@router.delete("/queries/{search_id}", status_code=204)
def delete_query(search_id: SearchId, parts: PartsDep) -> Response:
    """Forget a search and its clicks. Jobs that were started with them keep what they learnt from."""
    parts.query_log.flush()
    parts.registry.queries.delete(search_id)
    parts.datasets.forget_judgments()
    return Response(status_code=204)


def _public(search: LoggedSearch) -> SearchLogged:
    said = asdict(search)
    del said["sequence"], said["query_id"], said["unit"]  # the registry's own
    return SearchLogged.model_validate(said)


def _store(body: FeedbackCreate, parts: Parts) -> FeedbackPublic:
    parts.query_log.flush()
    clicked = [(click.passage_id, click.position) for click in body.clicks]
    stored = parts.registry.queries.click(body.search_id, clicked)
    repeated = len(clicked) - stored
    parts.metrics.clicked(stored)
    return FeedbackPublic(search_id=body.search_id, stored=stored, repeated=repeated)
