"""Who calls, as plain ASGI: who has no key is refused before a byte of the body is read, and so is who comes too often.

What a key may do is the route's question (`app.api.scopes`). The console's session stands for its key
(`app.api.session`), and no page of another origin writes anything, with or without a key, unless ADIABAT_CORS_ORIGINS
names it: where the service has no key, that a browser can reach it must not be enough.
"""

from collections.abc import Collection

from fastapi.security import HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import session
from app.api.problems import is_openai, of_error
from app.api.refusals import Refusals
from app.errors import AdiabatError, CrossSite, Unauthorized
from app.keys import Holder, KeyRing
from app.keys.ring import ANYBODY
from app.observe.logs import note, noted
from app.registry import Actor, acting

OPEN = frozenset({"/health/live", "/health/ready", "/version", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
# What /docs loads, and what the console's pages load.
OPEN_FOLDERS = ("/static-offline-docs/", "/console/static/")
# The console's pages hold nothing secret and ask for the key themselves; what they show depends on it.
PAGES = ("/console/",)
SHUT_FOLDERS = ("/console/cards/",)
METRICS = "/metrics"
MAX_PEER_CHARS = 64

# For the service's description alone; it refuses nothing.
described = HTTPBearer(auto_error=False, description="A key of `adiabat keys create`, or the one in ADIABAT_API_KEY.")


class KeyCheck:
    """`open_metrics` lets in scrapers that send no key, `origins` are those whose pages may write."""

    def __init__(
        self, app: ASGIApp, ring: KeyRing, refusals: Refusals, open_metrics: bool, origins: Collection[str]
    ) -> None:
        self._app = app
        self._ring = ring
        self._refusals = refusals
        self._open = OPEN | {METRICS} if open_metrics else OPEN
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        holder, refusal = None, None
        try:
            holder = await self._admitted(scope)
        except AdiabatError as error:
            refusal = error
        actor = _actor(scope, holder)
        if refusal is not None:
            await of_error(refusal, openai=is_openai(scope["path"]))(scope, receive, answering)
        else:
            scope["state"]["holder"] = holder
            with acting(actor):
                await self._app(scope, receive, answering)
        self._refusals.tell(scope, actor, status)

    async def _admitted(self, scope: Scope) -> Holder | None:
        """Who it is; None where nobody is asked and nobody said. Raises what refuses the request."""
        self._check_site(scope)
        path: str = scope["path"]
        if path in self._open or path.startswith(OPEN_FOLDERS):
            return None
        await self._ring.fresh()
        if not self._ring.locked:
            return ANYBODY
        holder = await self._shown(scope)
        if holder is None:
            if path == "/" or (path.startswith(PAGES) and not path.startswith(SHUT_FOLDERS)):
                return None
            raise Unauthorized()
        note(key=holder.name)
        self._ring.take(holder)
        return holder

    def _check_site(self, scope: Scope) -> None:
        if scope["method"] in session.SAFE_METHODS or not session.is_cross_site(scope):
            return
        if Headers(scope=scope).get("origin") not in self._origins:
            raise CrossSite()

    async def _shown(self, scope: Scope) -> Holder | None:
        """By a key in the header; by a session where there is none."""
        scheme, given = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
        if scheme.lower() == "bearer" and given:
            return await self._ring.of_token(given)
        key_id = session.opened_with(scope, self._ring.secret)
        return None if key_id is None else self._ring.of_id(key_id)


def _actor(scope: Scope, holder: Holder | None) -> Actor:
    peer = scope["client"]
    return Actor(
        key=holder.name if holder else None,
        peer=peer[0][:MAX_PEER_CHARS] if peer else None,
        request_id=noted("request_id"),
    )
