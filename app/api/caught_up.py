"""A replica that was paused answers nothing before it knows what the others did meanwhile. Plain ASGI."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import is_openai, of_error
from app.encoders.replicas import Among
from app.errors import Unavailable

# What says how the process is, whatever it serves with.
ALWAYS = frozenset({"/health/live", "/health/ready", "/version", "/metrics"})


class CaughtUp:
    def __init__(self, app: ASGIApp, replicas: Among) -> None:
        self._app = app
        self._replicas = replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._replicas.is_paused() and scope["path"] not in ALWAYS:
            try:
                await self._replicas.caught_up()
            except Unavailable as error:
                await of_error(error, openai=is_openai(scope["path"]))(scope, receive, send)
                return
        await self._app(scope, receive, send)
