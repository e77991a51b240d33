"""Whose search begins next where more come at once than may run."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.turns import InTurn, Turns, at_once
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
        turns.give_back(caller)

    async def work() -> None:
        turns = Turns(at_once=1, kept=0, max_waiting=100, max_wait_s=60)
        await turns.take("first")
        waiting = [asyncio.create_task(one(turns, "many", number)) for number in range(4)]
        waiting += [asyncio.create_task(one(turns, "few", number)) for number in range(2)]
        await settled()
        turns.give_back("first")
        await asyncio.gather(*waiting)

    ran(work)
    assert order == ["many 0", "few 0", "many 1", "few 1", "many 2", "many 3"]


def test_too_many_that_wait_and_who_waited_too_long_are_refused() -> None:
    async def work() -> None:
        turns = Turns(at_once=1, kept=0, max_waiting=1, max_wait_s=0.01)
        await turns.take("a")
        late = asyncio.create_task(turns.take("b"))
        await settled()
        with pytest.raises(Overloaded, match="1 requests wait for their turn"):
            await turns.take("c")
        with pytest.raises(Overloaded, match=r"waited 0\.01 s for its turn, which is the most"):
            await late  # though nobody gives a turn back
        turns.give_back("a")
        await turns.take("d")  # what was refused has left no turn taken

    ran(work)


def test_of_too_many_the_newest_of_who_has_most_is_refused() -> None:
    async def work() -> None:
        turns = Turns(at_once=1, kept=0, max_waiting=4, max_wait_s=60)
        await turns.take("first")
        many = [asyncio.create_task(turns.take("many")) for _ in range(4)]
        await settled()
        few = [asyncio.create_task(turns.take("few")) for _ in range(2)]
        await settled()
        with pytest.raises(Overloaded):
            await turns.take("few")  # two each: it would have most
        with pytest.raises(Overloaded):
            await turns.take("many")
        assert [each.done() for each in many] == [False, False, True, True]
        assert not any(each.done() for each in few)
        for each in many[2:]:
            with pytest.raises(Overloaded, match="4 requests wait"):
                await each
        many[0].cancel()
        await settled()
        another = asyncio.create_task(turns.take("few"))  # who left has made room
        await settled()
        assert not another.done()
        for each in (*few, many[1], another):
            each.cancel()

    ran(work)


def test_some_turns_are_kept_for_those_who_have_few() -> None:
    async def work() -> None:
        turns = Turns(at_once=2, kept=2, max_waiting=10, max_wait_s=60)
        many = [asyncio.create_task(turns.take("many")) for _ in range(4)]
        await settled()
        assert [each.done() for each in many] == [True, True, False, False]
        await turns.take("few")  # at once, though others wait
        await turns.take("other")
        late = asyncio.create_task(turns.take("few"))
        await settled()
        assert not late.done()
        turns.give_back("other")
        await late
        assert not many[2].done()
        turns.give_back("many")
        turns.give_back("few")
        await settled()
        assert [each.done() for each in many] == [True, True, True, False]
        many[3].cancel()

    ran(work)


def test_a_turn_is_given_back_when_the_answer_begins_however_slowly_it_is_taken() -> None:
    """Two clients that take nothing of their answers, and a third one."""
    answered: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"{}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answered.append(scope["raw"])

    async def call(turns: InTurn, name: bytes, taken: asyncio.Event) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(_: Message) -> None:
            await taken.wait()

        await turns({"type": "http", "path": "/search", "client": (name, 1), "raw": name, "state": {}}, receive, send)

    async def work() -> None:
        turns, never, at_once_now = InTurn(app, max_waiting=1, max_wait_s=60), asyncio.Event(), asyncio.Event()
        at_once_now.set()
        stuck = [asyncio.create_task(call(turns, b"slow", never)) for _ in range(3 * at_once())]
        await settled()
        await call(turns, b"slow", at_once_now)
        assert answered == [b"slow"]
        for each in stuck:
            each.cancel()

    ran(work)


def test_who_leaves_takes_no_turn_with_him() -> None:
    async def work() -> None:
        turns = Turns(at_once=1, kept=0, max_waiting=10, max_wait_s=60)
        await turns.take("a")
        waiting = [asyncio.create_task(turns.take("b")) for _ in range(3)]
        await settled()
        waiting[0].cancel()  # while it waits
        await settled()
        turns.give_back("a")
        waiting[1].cancel()  # in the moment that its turn was given
        await waiting[2]
        turns.give_back("b")
        await turns.take("c")
        assert [each.cancelled() for each in waiting] == [True, True, False]

    ran(work)
