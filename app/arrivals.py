"""Requests begin a few in each round of the event loop, the addresses that they come from one after another.

Two thousand that come at once are some tenths of a second's work to read and to refuse. In one go everybody would wait
for all of it; so who asks from another address waits for a round or two. Behind a proxy all come from one address, and
begin in the order in which they came.
"""

from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Hashable

A_ROUND = 8  # some 3 ms of work

Begin = Callable[[], None]


class Arrivals:
    """Of one event loop, and for it alone."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[Begin]] = {}  # by address, in the order of their turns
        self._begun = 0  # in this round

    def may_begin(self, loop: AbstractEventLoop) -> bool:
        """Whether a request may begin at once; else it is to `wait`."""
        if self._lines or self._begun >= A_ROUND:
            return False
        self._count(loop)
        return True

    def wait(self, address: Hashable, begin: Begin) -> None:
        """`begin` is called in a round to come. One waits only where `may_begin` said so, in the same round."""
        self._lines.setdefault(address, deque()).append(begin)

    def _count(self, loop: AbstractEventLoop) -> None:
        if self._begun == 0:
            loop.call_soon(self._next_round, loop)
        self._begun += 1

    def _next_round(self, loop: AbstractEventLoop) -> None:
        self._begun = 0
        while self._lines and self._begun < A_ROUND:
            address = next(iter(self._lines))
            line = self._lines.pop(address)
            begin = line.popleft()
            if line:
                self._lines[address] = line  # behind the others
            self._count(loop)  # first, so that whatever `begin` raises holds up nobody
            begin()
