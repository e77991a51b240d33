"""Errors as `application/problem+json` (RFC 9457): one table from class to status, one handler."""

import errno
import logging
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from app import errors
from app.errors import AdiabatError
from app.observe.logs import note, noted
from app.wire.findings import said

log = logging.getLogger("adiabat.api")

TYPE_PREFIX = "urn:adiabat:problem:"
NAME = re.compile(r"\{[^}]*\}")  # in the path of a route
MEANT_CHARS = 200  # of an address that is none

STATUS: dict[type[AdiabatError], int] = {
    errors.BadInput: 422,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.StaleGeneration: 412,
    errors.TooLarge: 413,
    errors.HeadersTooLarge: 431,
    errors.TooSlow: 408,
    errors.Unauthorized: 401,
    errors.MissingScope: 403,
    errors.CrossSite: 403,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
    errors.AdiabatError: 500,
}
HEADERS: dict[type[AdiabatError], dict[str, str]] = {
    errors.Unauthorized: {"WWW-Authenticate": "Bearer"},
    errors.TooSlow: {"Connection": "close"},
    errors.Overloaded: {"Retry-After": "1"},
    errors.IdempotencyKeyInUse: {"Retry-After": "5"},
    errors.Unavailable: {"Retry-After": "5"},
}


def problem(status: int, slug: str, detail: str, headers: dict[str, str] | None = None, **data: Any) -> Response:
    body = as_body(status, slug, detail, **data)
    return Response(body, status, headers=headers, media_type="application/problem+json")


def as_body(status: int, slug: str, detail: str, **data: Any) -> bytes:
    body = {
        "type": TYPE_PREFIX + slug,
        "title": slug.replace("-", " "),
        "status": status,
        "detail": detail,
        **data,
    }
    for name in ("request_id", "trace_id"):
        if (id := noted(name)) is not None:
            body[name] = id
    return orjson.dumps(body, default=str)


def status_of(error: AdiabatError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def of_error(error: AdiabatError, *, openai: bool = False) -> Response:
    status = status_of(error)
    headers = next((HEADERS[kind] for kind in type(error).__mro__ if kind in HEADERS), {})
    if (retry_after_s := error.data.get("retry_after_s")) is not None:
        headers = {**headers, "Retry-After": str(retry_after_s)}
    note(refusal=error.slug)
    more = _openai_error(error.slug, error.detail) if openai else {}
    return problem(status, error.slug, error.detail, headers, **error.data, **more)


def is_openai(path: str) -> bool:
    """Whether what answers there is read by OpenAI's clients."""
    return path.startswith("/v1/")


def _openai_error(slug: str, detail: str) -> dict[str, Any]:
    """The member that OpenAI's clients read; RFC 9457 lets a problem have more of them."""
    return {"error": {"message": detail, "type": slug, "code": slug, "param": None}}


def of_bug(error: Exception, request_id: str) -> Response:
    """A 500 that carries the request's id; the log has the rest under that id."""
    log.error("Internal error", exc_info=error)
    return problem(
        500, "internal-error", f"Something broke; the log tells what, under request_id {request_id}.", id=request_id
    )


def install(app: FastAPI) -> None:
    """Register the handlers. What none of them knows is a bug, and answered by `observed.Observed`."""

    @app.exception_handler(AdiabatError)
    async def _ours(request: Request, error: AdiabatError) -> Response:
        return of_error(error, openai=is_openai(request.url.path))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        found = [{"field": _field(item), "problem": said(item)} for item in error.errors()]
        first = "; ".join(f"{item['field']}: {item['problem']}" for item in found[:3])
        more = _openai_error("invalid-field", first) if is_openai(request.url.path) else {}
        return problem(422, "invalid-field", first, errors=found, **more)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        slug = {404: "no-such-route", 405: "method-not-allowed"}.get(error.status_code, "http-error")
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"There is no {request.method} {request.url.path}; {_meant(request)}GET /docs lists every call."
        elif error.status_code == 400:  # the framework found no text in the body
            detail = "The body cannot be read; send JSON in UTF-8, with the Content-Type application/json."
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the framework names the methods of the first route alone
            taken = sorted(_methods(request))
            headers["Allow"] = ", ".join(taken)
            takes = f"takes {' and '.join(taken)}, not {request.method}"
            detail = f"{request.url.path} {takes}; GET /docs lists every call."
        more = _openai_error(slug, detail) if is_openai(request.url.path) else {}
        return problem(error.status_code, slug, detail, headers, **more)

    @app.exception_handler(OSError)
    async def _disk(_: Request, error: OSError) -> Response:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = "The disk is full: what was acknowledged is stored; free some space and repeat the call."
            return of_error(errors.Unavailable(said))
        raise error


def _meant(request: Request) -> str:
    """What the address may have been meant for: one of as many parts, with the name that it has."""
    path = request.url.path[:MEANT_CHARS]
    first, *more = path.strip("/").split("/")
    templates = {each.path for each in iter_route_contexts(request.app.routes) if each.path}
    filled = {NAME.sub(more[0].replace("\\", "") if more else "", each) for each in templates}
    alike = sorted(each for each in filled if each.count("/") == path.rstrip("/").count("/"))
    if near := get_close_matches(path.rstrip("/"), alike, n=1, cutoff=0.8):
        return f"did you mean {near[0]}? "
    beneath = f"{path.rstrip('/')}/"
    if below := sorted(each for each in templates if each.startswith(beneath) and "{" not in each):
        return f"did you mean {' or '.join(below[:2])}? "
    takes_a_name = len(more) > 1 and any(each.startswith(f"/{first}/{{") for each in templates)
    return "names hold no slash, and " if takes_a_name else ""


def _methods(request: Request) -> set[str]:
    """All that the address takes."""
    path = request.url.path
    matching = (each for each in iter_route_contexts(request.app.routes) if each.path_regex.match(path))
    return {method for each in matching for method in each.methods or ()}


def _field(item: Mapping[str, Any]) -> str:
    """`passages.0.text` without the place it came from; the place alone where that is all there is."""
    where: tuple[int | str, ...] = item["loc"]
    if item["type"] == "json_invalid":  # the second part is a place in the text
        return str(where[0])
    return ".".join(str(part) for part in where[1:]) or str(where[0])
