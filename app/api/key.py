"""The key as plain ASGI: who has none is refused before a byte of the body is read.

The console's session stands for the key (`app.api.session`), and no page of another origin writes anything, with or
without one: where the service has no key, that a browser can reach it must not be enough.
"""

import hmac

from fastapi.security import HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import session
from app.api.problems import is_openai, of_error
from app.errors import AdiabatError, CrossSite, Unauthorized

OPEN = frozenset({"/", "/health/live", "/health/ready", "/version", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
# What /docs loads; the console's pages, which hold nothing secret and ask for the key themselves.
OPEN_FOLDERS = ("/static-offline-docs/", "/console/")
SHUT_FOLDERS = ("/console/cards/",)
METRICS = "/metrics"

# For the service's description alone; it refuses nothing.
described = HTTPBearer(auto_error=False, description="The key in ADIABAT_API_KEY.")


class KeyCheck:
    """`key` is None where the service has none; `open_metrics` lets in scrapers that send no key."""

    def __init__(self, app: ASGIApp, key: str | None, open_metrics: bool) -> None:
        self._app = app
        self._key = key
        self._open = OPEN | {METRICS} if open_metrics else OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, send)
            return
        await of_error(refusal, openai=is_openai(scope["path"]))(scope, receive, send)

    def _refusal(self, scope: Scope) -> AdiabatError | None:
        if scope["method"] not in session.SAFE_METHODS and session.is_cross_site(scope):
            return CrossSite()
        if self._key is None or self._is_open(scope["path"]) or session.opens(scope, self._key):
            return None
        scheme, given = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
        if scheme.lower() != "bearer" or not given:
            return Unauthorized()
        if hmac.compare_digest(given.encode(), self._key.encode()):
            return None
        return Unauthorized("The API key given is not the service's, which ADIABAT_API_KEY was set to where it runs.")

    def _is_open(self, path: str) -> bool:
        return path in self._open or (path.startswith(OPEN_FOLDERS) and not path.startswith(SHUT_FOLDERS))
