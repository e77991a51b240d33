"""The way in by a key, and out again."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.api import session
from app.api.deps import PartsDep
from app.console.rendering import render
from app.keys import Holder

router = APIRouter(prefix="/console", include_in_schema=False)

WRONG = "This key opens nothing here: it is not one of the service's, or not any more."
MAX_CHARS = 1_024


@router.get("/login")
async def login_page(request: Request, parts: PartsDep, next: str = "/") -> Response:
    if not parts.ring.locked:
        return RedirectResponse(_here(next), 303)
    return render(request, "login.html", ring=parts.ring, next=_here(next), problem="")


@router.post("/login")
async def sign_in(
    request: Request,
    parts: PartsDep,
    key: Annotated[str, Form(max_length=MAX_CHARS)] = "",
    next: Annotated[str, Form(max_length=8 * MAX_CHARS)] = "/",
) -> Response:
    if not parts.ring.locked:
        return RedirectResponse(_here(next), 303)
    holder = await parts.ring.of_token(key.strip())
    if holder is None:
        return render(request, "login.html", ring=parts.ring, status=403, next=_here(next), problem=WRONG)
    return _signed_in(request, holder, parts.ring.secret, _here(next))


@router.post("/logout")
def sign_out() -> Response:
    response = RedirectResponse("/console/login", 303)
    response.delete_cookie(session.COOKIE, httponly=True, samesite="strict")
    return response


def _signed_in(request: Request, holder: Holder, secret: bytes, to: str) -> Response:
    response = RedirectResponse(to, 303)
    response.set_cookie(
        session.COOKIE,
        session.open_session(secret, holder.id),
        max_age=session.LASTS_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _here(address: str) -> str:
    """`address` where it is one of this service, else the first page: nobody is sent elsewhere after signing in."""
    plain = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if plain else "/"
