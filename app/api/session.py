"""The console's session: a signed cookie that stands for a key, and the token that a page adds to its writes.

A browser sends a cookie whoever asked for the request, so the cookie alone opens reading only, which no other site can
look at; a write needs the token too, in a header that no form can set and no other site may (one that
ADIABAT_CORS_ORIGINS names comes with a key of its own: a session is for this origin's pages alone).
Nothing is kept on the server: another ADIABAT_API_KEY, the end of the key it was opened with, or of the time, ends it.
"""

import hmac
import secrets
import time
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

COOKIE = "adiabat-session"
TOKEN_HEADER = "x-adiabat-token"
LASTS_S = 7 * 24 * 3600
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OURS = frozenset({"same-origin", "none"})  # "none": the person typed the address


def open_session(secret: bytes, key_id: str) -> str:
    """The cookie's value for somebody who has shown the key of this id."""
    said = f"{int(time.time()) + LASTS_S}.{secrets.token_urlsafe(16)}.{key_id}"
    return f"{said}.{_signed(secret, 'session', said)}"


def key_of(secret: bytes, session: str) -> str | None:
    """The id of the key that `session` was opened with; None where it is not genuine or has ended."""
    said, _, signature = session.rpartition(".")
    genuine = hmac.compare_digest(signature.encode(), _signed(secret, "session", said).encode())
    if not genuine:
        return None
    ends, _, key_id = said.split(".")
    return key_id if int(ends) > time.time() else None


def token(secret: bytes, session: str) -> str:
    """What a page of this session sends with its writes."""
    return _signed(secret, "token", session)


def session_of(scope: Scope) -> str:
    """The cookie as sent; empty where none was."""
    return cookie_parser(Headers(scope=scope).get("cookie", "")).get(COOKIE, "")


def opened_with(scope: Scope, secret: bytes) -> str | None:
    """The id of the key that the request's session stands for, where it lets this request in."""
    session = session_of(scope)
    key_id = key_of(secret, session) if session else None
    if key_id is None or is_cross_site(scope):
        return None
    if scope["method"] in SAFE_METHODS:
        return key_id
    given = Headers(scope=scope).get(TOKEN_HEADER, "")
    return key_id if hmac.compare_digest(given.encode(), token(secret, session).encode()) else None


def is_cross_site(scope: Scope) -> bool:
    """Whether a browser says that a page of another origin made this request. Programs say nothing."""
    return Headers(scope=scope).get("sec-fetch-site", "none") not in OURS


def _signed(secret: bytes, purpose: str, said: str) -> str:
    return hmac.new(secret, f"{purpose}:{said}".encode(), sha256).hexdigest()
