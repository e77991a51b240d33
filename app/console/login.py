"""The way in by the service's API key, and out again."""

import hmac
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.api import session
from app.api.deps import PartsDep
from app.console.rendering import render

router = APIRouter(prefix="/console", include_in_schema=False)

WRONG = "This is not the service's key, which ADIABAT_API_KEY was set to where it runs."
MAX_CHARS = 1_024


@router.get("/login")
def login_page(request: Request, parts: PartsDep, next: str = "/") -> Response:
    if parts.settings.api_key is None:
        return RedirectResponse(_here(next), 303)
    return render(request, "login.html", key=parts.settings.api_key, next=_here(next), problem="")


@router.post("/login")
def sign_in(
    request: Request,
    parts: PartsDep,
    key: Annotated[str, Form(max_length=MAX_CHARS)] = "",
    next: Annotated[str, Form(max_length=8 * MAX_CHARS)] = "/",
) -> Response:
    held = parts.settings.api_key
    if held is not None:
        if not hmac.compare_digest(key.strip().encode(), held.encode()):
            return render(request, "login.html", key=held, status=403, next=_here(next), problem=WRONG)
        response = RedirectResponse(_here(next), 303)
        response.set_cookie(
            session.COOKIE,
            session.open_session(held),
            max_age=session.LASTS_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response
    return RedirectResponse(_here(next), 303)


@router.post("/logout")
def sign_out() -> Response:
    response = RedirectResponse("/console/login", 303)
    response.delete_cookie(session.COOKIE, httponly=True, samesite="strict")
    return response


def _here(address: str) -> str:
    """`address` where it is one of this service, else the first page: nobody is sent elsewhere after signing in."""
    plain = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if plain else "/"
