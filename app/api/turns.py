"""Searches begin in turns by caller, so that nobody waits behind another one's two thousand. Plain ASGI.

A call has its whole body before it asks for a turn: who sends slowly keeps no turn from others. What waits costs its
body and no work; who is a caller, the key says, and the address.
"""

import asyncio
import time
from collections import deque
from collections.abc import Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.leaving import WATCHED
from app.api.problems import is_openai, of_error
from app.api.scopes import holder_of
from app.encoders.cores import whole_cores
from app.errors import Overloaded

AT_ONCE_A_CORE = 16  # enough to fill the engine's runs; one more only waits behind them


class Turns:
    """At most `at_once` have a turn; the rest wait, the callers one after another. The event loop's alone."""

    def __init__(self, *, at_once: int, max_waiting: int, max_wait_s: float) -> None:
        self._free = at_once
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._lines: dict[Hashable, deque[tuple[float, asyncio.Future[None]]]] = {}  # in the order of their turns
        self._waiting = 0

    async def take(self, caller: Hashable) -> None:
        """Raises `Overloaded` where too many wait, or this one waited too long; else `give_back` is due."""
        if self._free:
            self._free -= 1
            return
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} requests wait for their turn; try again in a moment.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(caller, deque()).append((time.monotonic(), turn))
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:  # it was given in the very moment
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._lines:
            caller = next(iter(self._lines))
            line = self._lines.pop(caller)
            since, turn = line.popleft()
            self._waiting -= 1
            if line:
                self._lines[caller] = line  # behind the others
            if turn.cancelled():
                continue
            waited_s = time.monotonic() - since
            if waited_s <= self._max_wait_s:
                turn.set_result(None)
                return
            turn.set_exception(
                Overloaded(
                    f"The request waited {waited_s:.1f} s for its turn, and {self._max_wait_s:g} s is the most "
                    "(ADIABAT_MAX_WAIT_S); try again in a moment."
                )
            )
        self._free += 1


class InTurn:
    """Each path has turns of its own: no search waits for a batch of hundreds."""

    def __init__(self, app: ASGIApp, *, max_waiting: int, max_wait_s: float) -> None:
        self._app = app
        self._turns = {
            path: Turns(at_once=at_once(), max_waiting=max_waiting, max_wait_s=max_wait_s) for path in WATCHED
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        turns = self._turns.get(scope["path"]) if scope["type"] == "http" else None
        if turns is None:
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        try:
            await turns.take(_caller(scope))
        except Overloaded as error:
            await of_error(error, openai=is_openai(scope["path"]))(scope, receive, send)
            return

        async def again() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = body, None
            return message

        try:
            await self._app(scope, again, send)
        finally:
            turns.give_back()


def at_once() -> int:
    return AT_ONCE_A_CORE * max(2, whole_cores())


def _caller(scope: Scope) -> Hashable:
    holder, client = holder_of(scope), scope["client"]
    return holder and holder.name, client and client[0]


async def _whole(receive: Receive) -> Message | None:
    """The body in one message, or what came in its place."""
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}
    return message
