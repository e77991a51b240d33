"""Following a job over a connection that breaks: both clients go on after the last event they heard."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from app.client import AdiabatClient, ApiError, AsyncAdiabatClient, Unreachable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"0\r\n\r\n"  # without it the connection was broken off
GONE = b"HTTP/1.1 204 No Content\r\n\r\n"
REFUSED = b'HTTP/1.1 404 Not Found\r\nContent-Length: 46\r\n\r\n{"type": "urn:x:job-not-found", "detail": "x"}'


def event(sequence: int, kind: str = "log") -> bytes:
    data = json.dumps({"sequence": sequence, "at": 0.0, "kind": kind, "data": {}})
    frame = f": still here\n\nid: {sequence}\nevent: {kind}\ndata: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(frame), frame)


class Peer:
    """Answers each connection with the next of `answers`, then closes it; `asked` are the lines of request."""

    def __init__(self, listener: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.answers: list[bytes] = []
        self.asked: list[str] = []
        self._listener = listener

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the test is over
                return
            with connection, connection.makefile("rb") as request:
                self.asked.append(request.readline().decode())
                while request.readline().strip():
                    pass
                connection.sendall(self.answers.pop(0))


@pytest.fixture
def peer() -> Iterator[Peer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = Peer(listener)
        thread = threading.Thread(target=peer.serve)
        thread.start()
        yield peer
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _follow_sync(url: str, retries: int) -> list[int]:
    with AdiabatClient(url, retries=retries) as client:
        return [event.sequence for event in client.job_events("j")]


def _follow_async(url: str, retries: int) -> list[int]:
    async def follow() -> list[int]:
        async with AsyncAdiabatClient(url, retries=retries) as client:
            return [event.sequence async for event in client.job_events("j")]

    return asyncio.run(follow())


@pytest.fixture(params=[_follow_sync, _follow_async], ids=["sync", "async"])
def follow(request: pytest.FixtureRequest) -> Callable[[str, int], list[int]]:
    found: Callable[[str, int], list[int]] = request.param
    return found


def test_a_broken_connection_is_taken_up_after_the_last_event(
    peer: Peer, follow: Callable[[str, int], list[int]]
) -> None:
    peer.answers = [HEAD + event(1) + event(2), HEAD + event(3) + event(4, "end") + WHOLE]
    assert follow(peer.url, 1) == [1, 2, 3, 4]
    assert [line.split()[1].partition("?")[2] for line in peer.asked] == ["after=0", "after=2"]


def test_a_service_that_stops_and_comes_back_is_followed_on(
    peer: Peer, follow: Callable[[str, int], list[int]]
) -> None:
    away = b"HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\n{}"
    peer.answers = [HEAD + event(1) + WHOLE, away, HEAD + event(2, "end") + WHOLE]
    assert follow(peer.url, 1) == [1, 2]


def test_an_end_that_a_resumed_job_left_behind_is_not_taken_for_the_last(
    peer: Peer, follow: Callable[[str, int], list[int]]
) -> None:
    peer.answers = [HEAD + event(1, "end"), HEAD + event(2) + event(3, "end") + WHOLE]
    assert follow(peer.url, 1) == [1, 2, 3]


def test_following_ends_when_nothing_is_left_or_the_service_refuses_or_stays_away(
    peer: Peer, follow: Callable[[str, int], list[int]]
) -> None:
    peer.answers = [GONE, REFUSED, HEAD + event(1)]
    assert follow(peer.url, 1) == []
    with pytest.raises(ApiError, match="x"):
        follow(peer.url, 1)
    with pytest.raises(Unreachable):
        follow(peer.url, 0)
