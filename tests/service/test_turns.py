"""Whose search begins next where more come at once than may run."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.api.turns import Turns
from app.errors import Overloaded


def ran(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))  # type: ignore[arg-type]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_callers_take_turns_however_many_requests_one_has() -> None:
    order: list[str] = []

    async def one(turns: Turns, caller: str, number: int) -> None:
        await turns.take(caller)
        order.append(f"{caller} {number}")
        turns.give_back()

    async def work() -> None:
        turns = Turns(at_once=1, max_waiting=100, max_wait_s=60)
        await turns.take("first")
        waiting = [asyncio.create_task(one(turns, "many", number)) for number in range(4)]
        waiting += [asyncio.create_task(one(turns, "few", number)) for number in range(2)]
        await settled()
        turns.give_back()
        await asyncio.gather(*waiting)

    ran(work)
    assert order == ["many 0", "few 0", "many 1", "few 1", "many 2", "many 3"]


def test_too_many_that_wait_and_who_waited_too_long_are_refused() -> None:
    async def work() -> None:
        turns = Turns(at_once=1, max_waiting=1, max_wait_s=0)
        await turns.take("a")
        late = asyncio.create_task(turns.take("b"))
        await settled()
        with pytest.raises(Overloaded, match="1 requests wait for their turn"):
            await turns.take("c")
        await asyncio.sleep(0.01)
        turns.give_back()
        with pytest.raises(Overloaded, match=r"waited 0\.0 s for its turn, and 0 s is the most"):
            await late
        await turns.take("d")  # what was refused has left no turn taken

    ran(work)


def test_who_leaves_takes_no_turn_with_him() -> None:
    async def work() -> None:
        turns = Turns(at_once=1, max_waiting=10, max_wait_s=60)
        await turns.take("a")
        waiting = [asyncio.create_task(turns.take("b")) for _ in range(3)]
        await settled()
        waiting[0].cancel()  # while it waits
        await settled()
        turns.give_back()
        waiting[1].cancel()  # in the moment that its turn was given
        await waiting[2]
        turns.give_back()
        await turns.take("c")
        assert [each.cancelled() for each in waiting] == [True, True, False]

    ran(work)
