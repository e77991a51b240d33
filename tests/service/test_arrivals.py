"""Requests that come at once begin a few at a time, whoever sent most of them."""

import asyncio
import json
import socket
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import BinaryIO

import pytest

from app import arrivals
from app.arrivals import A_ROUND, Arrivals
from app.settings import Settings
from tests.conftest import Service, running, wait_until


def test_who_comes_from_another_address_begins_in_the_next_round() -> None:
    begun: list[Hashable] = []

    async def work() -> None:
        line, loop = Arrivals(), asyncio.get_running_loop()
        for address in ["many"] * 5 * A_ROUND + ["few", "few", "other"]:
            if line.may_begin(loop):
                begun.append(address)
            else:
                line.wait(address, lambda address=address: begun.append(address))  # type: ignore[misc]
        assert begun == ["many"] * A_ROUND
        await asyncio.sleep(0)
        assert begun[A_ROUND:] == ["many", "few", "other", "many", "few", *["many"] * (A_ROUND - 5)]
        assert not line.may_begin(loop)  # others wait
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(begun) == 5 * A_ROUND + 3
        assert line.may_begin(loop)

    asyncio.run(work())


def test_one_that_fails_at_its_beginning_holds_up_nobody() -> None:
    begun = []

    async def work() -> None:
        line, loop = Arrivals(), asyncio.get_running_loop()
        told: list[object] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        while line.may_begin(loop):
            pass
        line.wait("a", lambda: 1 / 0)  # type: ignore[arg-type]
        line.wait("a", lambda: begun.append("next"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert [type(each) for each in told] == [ZeroDivisionError]

    asyncio.run(work())
    assert begun == ["next"]


def test_what_waits_loses_no_byte(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies in two parts, two requests one behind the other, connections used again, one that leaves."""
    monkeypatch.setattr(arrivals, "A_ROUND", 1)
    waited = []
    wait = Arrivals.wait

    def counted(self: Arrivals, address: Hashable, begin: Callable[[], None]) -> None:
        waited.append(address)
        wait(self, address, begin)

    monkeypatch.setattr(Arrivals, "wait", counted)
    service.client.upsert_passages({"id": str(number), "text": f"bees {number}"} for number in range(3))
    at = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(at, timeout=20)) for _ in range(100)]
        for turn in range(3):
            limits = [1 + (turn + number) % 3 for number in range(len(connections))]
            for connection, limit in zip(connections, limits, strict=True):
                connection.sendall(request(limit)[:-5])
            for connection, limit in zip(connections, limits, strict=True):
                connection.sendall(request(limit)[-5:] + request(limit))  # and once more, before it is answered
            connections.pop().close()
            for connection, limit in zip(connections, limits, strict=False):
                with connection.makefile("rb") as answers:
                    assert [hits(answers), hits(answers)] == [limit] * 2
    assert len(waited) > 50


def test_what_waits_for_its_turn_when_the_service_stops_is_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a new connection and on one that was used before."""

    waiting = 0

    def begin_in_two_seconds(_self: Arrivals, _address: Hashable, begin: Callable[[], None]) -> None:
        nonlocal waiting
        waiting += 1
        asyncio.get_running_loop().call_later(2, begin)

    with ExitStack() as stack:
        with running(settings) as service:
            service.client.upsert_passages([{"id": "1", "text": "bees"}])
            at = ("127.0.0.1", int(service.url.rpartition(":")[2]))
            connections = [stack.enter_context(socket.create_connection(at, timeout=20)) for _ in range(2)]
            answers = [stack.enter_context(connection.makefile("rb")) for connection in connections]
            connections[0].sendall(request(1))
            assert hits(answers[0]) == 1
            monkeypatch.setattr(Arrivals, "may_begin", lambda *_: False)
            monkeypatch.setattr(Arrivals, "wait", begin_in_two_seconds)
            for connection in connections:
                connection.sendall(request(1))
            wait_until(lambda: waiting == 2)  # and it stops while both do
        for each in answers:
            assert hits(each) == 1
            assert each.read() == b""


def request(limit: int) -> bytes:
    body = json.dumps({"query": "bees", "limit": limit}).encode()
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def hits(answers: BinaryIO) -> int:
    """How many the next answer has."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = answers.read(1)
        assert byte, "the connection was closed"
        head += byte
    assert head.startswith(b"HTTP/1.1 200")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return len(json.loads(answers.read(length))["hits"])
