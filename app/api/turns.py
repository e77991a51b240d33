"""Searches begin in turns by caller, so that nobody waits behind another one's two thousand. Plain ASGI.

A call has its whole body before it asks for a turn (`app.api.bodies`), and gives the turn back when its answer begins:
who reads slowly keeps none. What waits costs no work; who is a caller, the key says, and the address.
"""

import asyncio
from collections import Counter
from collections.abc import Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.bodies import refuse
from app.api.leaving import WATCHED
from app.api.scopes import holder_of
from app.encoders.cores import whole_cores
from app.encoders.loaded import TURN_TEXTS
from app.errors import Overloaded
from app.wire.search import MAX_QUERIES

AT_ONCE_A_CORE = 16  # enough to fill the engine's runs; one more only waits behind them
MOST_TEXTS = {"/search/batch": MAX_QUERIES, "/v1/embeddings": TURN_TEXTS}  # of a call that wait for an encoder at once

Turn = asyncio.Future[None]


class Turns:
    """At most `at_once` have a turn, and `kept` more that only callers get who have fewer than so many: whoever has the
    others may wait long, for an encoder to be loaded. The rest wait, the callers one after another. The event loop's
    alone."""

    def __init__(self, *, at_once: int, kept: int, max_waiting: int, max_wait_s: float) -> None:
        self._free = at_once + kept
        self._kept = kept
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._had: Counter[Hashable] = Counter()
        self._lines: dict[Hashable, dict[Turn, None]] = {}  # both in the order of their turns
        self._waiting = 0

    async def take(self, caller: Hashable) -> None:
        """Raises `Overloaded` where too many wait, or this one waited too long; else `give_back` is due."""
        if self._may(caller):
            self._give(caller)
            return
        if self._waiting >= self._max_waiting:
            self._make_room(caller)
        loop = asyncio.get_running_loop()
        turn: Turn = loop.create_future()
        self._lines.setdefault(caller, {})[turn] = None
        self._waiting += 1
        late = loop.call_later(self._max_wait_s, self._refuse, caller, turn, self._too_late())
        try:
            await turn
        except asyncio.CancelledError:
            if self._leaves(caller, turn) or turn.cancelled() or turn.exception() is not None:
                raise
            self.give_back(caller)  # it was given in the very moment
            raise
        finally:
            late.cancel()

    def give_back(self, caller: Hashable) -> None:
        self._had[caller] -= 1
        if not self._had[caller]:
            del self._had[caller]
        self._free += 1
        while (lucky := next(filter(self._may, self._lines), None)) is not None:
            line = self._lines.pop(lucky)
            turn = next(iter(line))
            del line[turn]
            self._waiting -= 1
            if line:
                self._lines[lucky] = line  # behind the others
            if not turn.cancelled():
                self._give(lucky)
                turn.set_result(None)

    def _may(self, caller: Hashable) -> bool:
        return self._free > (self._kept if self._had[caller] >= self._kept else 0)

    def _give(self, caller: Hashable) -> None:
        self._free -= 1
        self._had[caller] += 1

    def _make_room(self, caller: Hashable) -> None:
        """The newest of the longest line goes. Raises `Overloaded` where that would be this one."""
        longest = max(self._lines, key=lambda each: len(self._lines[each]))
        told = Overloaded(f"{self._waiting} requests wait for their turn; try again in a moment.")
        if len(self._lines[longest]) <= len(self._lines.get(caller, ())) + 1:
            raise told
        self._refuse(longest, next(reversed(self._lines[longest])), told)

    def _refuse(self, caller: Hashable, turn: Turn, told: Overloaded) -> None:
        if self._leaves(caller, turn) and not turn.cancelled():
            turn.set_exception(told)

    def _leaves(self, caller: Hashable, turn: Turn) -> bool:
        """False where it waits no more."""
        line = self._lines.get(caller, {})
        if turn not in line:
            return False
        del line[turn]
        self._waiting -= 1
        if not line:
            del self._lines[caller]
        return True

    def _too_late(self) -> Overloaded:
        return Overloaded(
            f"The request waited {self._max_wait_s:g} s for its turn, which is the most (ADIABAT_MAX_WAIT_S); "
            "try again in a moment."
        )


class InTurn:
    """Each path has turns of its own, and no more than half of all that may wait for an encoder comes of those of one:
    no search waits for a batch of hundreds, nor is refused for it."""

    def __init__(self, app: ASGIApp, *, max_waiting: int, max_wait_s: float) -> None:
        self._app = app
        self._turns = {}
        for path in WATCHED:
            many = min(at_once(), max(1, max_waiting // (2 * MOST_TEXTS.get(path, 1))))
            self._turns[path] = Turns(at_once=many, kept=many // 4, max_waiting=max_waiting, max_wait_s=max_wait_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        turns = self._turns.get(scope["path"]) if scope["type"] == "http" else None
        if turns is None:
            await self._app(scope, receive, send)
            return
        caller = _caller(scope)
        try:
            await turns.take(caller)
        except Overloaded as error:
            await refuse(error, scope, receive, send)
            return
        has_turn = True

        def give_back() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                turns.give_back(caller)

        async def sent(message: Message) -> None:
            give_back()  # the answer is whole when it begins
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            give_back()


def at_once() -> int:
    return AT_ONCE_A_CORE * max(2, whole_cores())


def _caller(scope: Scope) -> Hashable:
    holder, client = holder_of(scope), scope["client"]
    return holder and holder.name, client and client[0]
