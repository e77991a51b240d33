"""The console's session: a signed cookie that stands for the API key, and the token that a page adds to its writes.

A browser sends a cookie whoever asked for the request, so the cookie alone opens reading only, which no other site can
look at; a write needs the token too, in a header that no form can set and no other site may (there is no CORS here).
Nothing is kept on the server: another key, or the end of the time, ends every session.
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


def open_session(key: str) -> str:
    """The cookie's value for somebody who has shown the key."""
    said = f"{int(time.time()) + LASTS_S}.{secrets.token_urlsafe(16)}"
    return f"{said}.{_signed(key, 'session', said)}"


def holds(key: str, session: str) -> bool:
    """Whether `session` was made with this key and has not ended."""
    said, _, signature = session.rpartition(".")
    ends = said.partition(".")[0]
    genuine = hmac.compare_digest(signature.encode(), _signed(key, "session", said).encode())
    return genuine and ends.isdecimal() and int(ends) > time.time()


def token(key: str, session: str) -> str:
    """What a page of this session sends with its writes."""
    return _signed(key, "token", session)


def session_of(scope: Scope) -> str:
    """The cookie as sent; empty where none was."""
    return cookie_parser(Headers(scope=scope).get("cookie", "")).get(COOKIE, "")


def opens(scope: Scope, key: str) -> bool:
    """Whether the request's session lets it in."""
    session = session_of(scope)
    if not session or not holds(key, session):
        return False
    if scope["method"] in SAFE_METHODS:
        return not is_cross_site(scope)
    given = Headers(scope=scope).get(TOKEN_HEADER, "")
    return hmac.compare_digest(given.encode(), token(key, session).encode())


def is_cross_site(scope: Scope) -> bool:
    """Whether a browser says that a page of another origin made this request. Programs say nothing."""
    return Headers(scope=scope).get("sec-fetch-site", "none") not in OURS


def _signed(key: str, purpose: str, said: str) -> str:
    return hmac.new(key.encode(), f"{purpose}:{said}".encode(), sha256).hexdigest()
