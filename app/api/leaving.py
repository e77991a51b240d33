"""Work for a client that has left is dropped, so that a service which is asked too much does not do it for nobody."""

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WATCHED = frozenset({"/search", "/search/batch", "/v1/embeddings"})
PATIENCE_S = 1.0  # until here a request costs a timer alone; whoever leaves sooner is answered by then


class Leaving:
    """A watched call that has its body, and is not answered in `PATIENCE_S`, is cancelled when its client leaves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in WATCHED:
            await self._app(scope, receive, send)
            return
        loop, work = asyncio.get_running_loop(), asyncio.current_task()
        assert work is not None
        complete, left = scope["method"] == "GET", False
        watching: asyncio.Task[None] | None = None
        timer: asyncio.TimerHandle

        async def noted() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def watch() -> None:
            nonlocal left
            with suppress(Exception):  # whatever the server finds wrong with a connection, the work may end by itself
                while (await receive())["type"] != "http.disconnect":
                    pass
                left = True
                work.cancel()

        def begin() -> None:
            nonlocal timer, watching
            if complete:
                watching = loop.create_task(watch())
            else:  # the body is still being read, by the application
                timer = loop.call_later(PATIENCE_S, begin)

        timer = loop.call_later(PATIENCE_S, begin)
        try:
            await self._app(scope, noted, send)
        except asyncio.CancelledError:
            if not left:
                raise
            work.uncancel()
            raise ClientDisconnect from None
        finally:
            timer.cancel()
            if watching is not None:
                watching.cancel()
