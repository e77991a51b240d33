"""A page: its template, and the headers that keep foreign scripts and frames away from it."""

from functools import cache
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from app import __version__
from app.api import session
from app.api.scopes import holder_of
from app.console.files import content
from app.keys import KeyRing

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",  # it carries the session's token
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
NAVIGATION = (
    ("/", "Search"),
    ("/console/encoders", "Encoders"),
    ("/console/tuning", "Tuning"),
    ("/console/evaluations", "Evaluations"),
    ("/console/judgments", "Judgments"),
    ("/console/data", "Data"),
    ("/console/operations", "Operations"),
)


def render(request: Request, template: str, *, ring: KeyRing, status: int = 200, **told: Any) -> HTMLResponse:
    """For whom the request comes from; nobody signs in where `ring` is not locked."""
    held, holder = session.session_of(request.scope) if ring.locked else "", holder_of(request.scope)
    page = _environment().get_template(template)
    text = page.render(
        static=f"/console/static/{content()}",
        navigation=NAVIGATION,
        path=request.url.path,
        token=session.token(ring.secret, held) if held else "",
        scope=holder.scope if holder else "",
        key_name=holder.name if holder and holder.name else "",
        version=__version__,
        **told,
    )
    return HTMLResponse(text, status, headers=HEADERS)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("app.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
