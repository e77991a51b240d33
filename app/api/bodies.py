"""The bodies of searches are read whole before their calls wait: who sends slowly keeps no turn from others.

What waits costs its body. Thousands of ordinary ones are nothing; what long ones hold together is bounded. Plain ASGI.
"""

from types import SimpleNamespace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.leaving import WATCHED
from app.api.problems import is_openai, of_error
from app.errors import AdiabatError, Overloaded

SHORT_BYTES = 65_536  # of a body are not counted: an ordinary search is never refused for others' long ones
LONG_BODIES = 4  # of the greatest length may be held


class WholeBody:
    """A body is held until its answer begins: who reads slowly keeps none."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._most_bytes = LONG_BODIES * max_body_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in WATCHED:
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []
        held, length, more = 0, 0, True

        def give_back() -> None:
            nonlocal held
            self._held_bytes -= held
            held = 0

        async def again() -> Message:
            if not parts:
                return await receive()
            whole = b"".join(parts)
            parts.clear()
            return {"type": "http.request", "body": whole, "more_body": False}

        async def sent(message: Message) -> None:
            give_back()
            await send(message)

        try:
            while more:
                message = await receive()
                if message["type"] != "http.request":  # the client has left
                    return
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
                length += len(parts[-1])
                beyond = max(0, length - SHORT_BYTES) - held
                if beyond and self._held_bytes + beyond > self._most_bytes:
                    give_back()
                    await refuse(self._too_much(), scope, receive, send)
                    return
                self._held_bytes += beyond
                held += beyond
            await self._app(scope, again, sent)
        finally:
            give_back()

    def _too_much(self) -> Overloaded:
        return Overloaded(
            f"The long bodies of other requests hold {self._held_bytes / 1e6:.1f} MB already; try again in a moment, "
            "or in smaller parts."
        )


async def refuse(error: AdiabatError, scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = SimpleNamespace(path_format=scope["path"])  # for the metrics: the router was not reached
    await of_error(error, openai=is_openai(scope["path"]))(scope, receive, send)
