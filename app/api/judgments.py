"""`/judgments`: judge, list, take back."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.deps import PartsDep
from app.api.queries import check_query, sequence_cursor
from app.api.scopes import Scoped
from app.errors import PassageNotFound
from app.registry import Judgment, NewJudgment
from app.wire.judgments import JudgmentCreate, JudgmentPage, JudgmentPublic

router = APIRouter(prefix="/judgments", tags=["judgments"], route_class=Scoped)


@router.post(
    "",
    response_model=JudgmentPublic,
    status_code=201,
    response_model_exclude_none=True,
    responses={200: {"model": JudgmentPublic, "description": "The query and the passage had been judged before"}},
)
def judge(body: JudgmentCreate, response: Response, parts: PartsDep) -> JudgmentPublic:
    """Say how relevant a stored passage is to a query: feedback from production, such as a thumb up or down.

    The newest judgment of a query and a passage counts: it replaces the one before under the same id (200). The same
    again changes nothing. All of them are the built-in dataset `judgments`, which tuning jobs and evaluations name
    like any other: the oldest four fifths of its queries, by their first judgment, are its split `train`, the newest
    fifth is `dev`. Grades 1 to 3 are relevant alike there.
    """
    check_query("query", body.query, parts.settings)
    if not parts.store.content_hashes([body.passage_id]):
        raise PassageNotFound(f"No passage has the id {body.passage_id!r}; only what is stored can be judged.")
    judgment, new = parts.registry.judgments.put(
        NewJudgment(
            query=_single_spaced(body.query), passage_id=body.passage_id, relevance=body.relevance, lang=body.lang
        )
    )
    parts.metrics.judged(judgment.relevance)
    if not new:
        response.status_code = 200
    return _public(judgment)


@router.get("", response_model=JudgmentPage, response_model_exclude_none=True)
def list_judgments(
    parts: PartsDep,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    query: Annotated[str | None, Query(description="Only those of this very query.")] = None,
    lang: Annotated[str | None, Query(description="Only those in this language; empty: those that name none.")] = None,
) -> JudgmentPage:
    """Newest first, a page at a time; `next_cursor` leads to the next page and is absent on the last."""
    asked = None if query is None else _single_spaced(query)
    found = parts.registry.judgments.page(limit + 1, before=sequence_cursor(cursor), query=asked, lang=lang)
    page, languages = found[:limit], parts.registry.judgments.count(asked)
    return JudgmentPage(
        judgments=[_public(each) for each in page],
        count=sum(languages.values()) if lang is None else languages.get(lang, 0),
        languages=languages,
        next_cursor=str(page[-1].sequence) if len(found) > limit else None,
    )


@router.delete("/{judgment_id}", status_code=204)
def delete_judgment(judgment_id: str, parts: PartsDep) -> Response:
    """Take one back: as if it had never been said. Jobs that were started with it keep it."""
    parts.registry.judgments.delete(judgment_id)
    parts.datasets.forget_judgments()
    return Response(status_code=204)


def _single_spaced(query: str) -> str:
    return " ".join(query.split())


def _public(judgment: Judgment) -> JudgmentPublic:
    said = asdict(judgment)
    return JudgmentPublic(**{name: said[name] for name in JudgmentPublic.model_fields})
