"""The pages. Each is a frame that its script fills from the public API; none holds anything that needs the key."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.api.deps import Parts, PartsDep
from app.api.scopes import holder_of
from app.console.fields import gate_fields, recipe_fields
from app.console.rendering import render
from app.samples import at_hand

router = APIRouter(include_in_schema=False)


@router.head("/")
@router.get("/")
def search_page(request: Request, parts: PartsDep) -> Response:
    return _page(request, parts, "search.html", samples=at_hand() is not None)


@router.get("/console/encoders")
def encoders_page(request: Request, parts: PartsDep) -> Response:
    return _page(request, parts, "encoders.html")


@router.get("/console/encoders/{key}")
def encoder_page(request: Request, parts: PartsDep, key: str) -> Response:
    return _page(request, parts, "encoder.html", key_shown=key)


@router.get("/console/tuning")
def tuning_page(request: Request, parts: PartsDep) -> Response:
    starts = "new" in request.query_params
    return _page(request, parts, "tuning.html", recipe=recipe_fields(), gate=gate_fields(), starts=starts)


@router.get("/console/tuning/{job_id}")
def job_page(request: Request, parts: PartsDep, job_id: str) -> Response:
    return _page(request, parts, "job.html", job_id=job_id)


@router.get("/console/evaluations")
def evaluations_page(request: Request, parts: PartsDep) -> Response:
    return _page(request, parts, "evaluations.html")


@router.get("/console/evaluations/{evaluation_id}")
def evaluation_page(request: Request, parts: PartsDep, evaluation_id: str) -> Response:
    return _page(request, parts, "evaluation.html", evaluation_id=evaluation_id)


@router.get("/console/judgments")
def judgments_page(request: Request, parts: PartsDep) -> Response:
    return _page(request, parts, "judgments.html")


@router.get("/console/queries")
def queries_page(request: Request, parts: PartsDep) -> Response:
    return _page(request, parts, "queries.html")


@router.get("/console/data")
def data_page(request: Request, parts: PartsDep) -> Response:
    return _page(request, parts, "data.html", samples=at_hand() is not None)


@router.get("/console/operations")
def operations_page(request: Request, parts: PartsDep) -> Response:
    return _page(request, parts, "operations.html")


def _page(request: Request, parts: Parts, template: str, **told: Any) -> Response:
    """The page, or the way in where the service asks for a key and the person has not shown one."""
    if holder_of(request.scope) is None:
        address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/console/login?next={quote(address, safe='')}", 303)
    return render(request, template, ring=parts.ring, **told)
