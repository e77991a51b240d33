"""What bodies may hold together while their calls wait."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.bodies import LONG_BODIES, SHORT_BYTES, WholeBody

LONG = 10 * SHORT_BYTES  # more than a quarter of what may be held, since the first bytes of each are not counted


class Calls:
    """Calls of an application that has their bodies and answers when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.read: list[int] = []
        self.sent: list[Message] = []
        self.web = WholeBody(self.answer, max_body_bytes=LONG)

    async def answer(self, _scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        self.read.append(len(message["body"]))
        await self.let.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()  # however slowly the answer is taken

    def call(self, length: int, path: str = "/search", *, leaves: bool = False) -> "asyncio.Task[None]":
        parts = [b"x" * (length // 2), b"x" * (length - length // 2)]
        messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": part is parts[0]} for part in parts
        ]
        if leaves:
            messages[1:] = [{"type": "http.disconnect"}]

        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            self.sent.append(message)

        return asyncio.create_task(self.web({"type": "http", "path": path, "headers": []}, receive, send))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/search", "/search/batch", "/v1/embeddings"])
def test_long_bodies_are_held_up_to_a_bound_and_short_ones_always(path: str) -> None:
    async def work() -> None:
        calls = Calls()
        waiting = [calls.call(LONG, path) for _ in range(LONG_BODIES)]
        await settled()
        assert calls.read == [LONG] * LONG_BODIES
        refused = calls.call(LONG, path)
        await settled()
        assert refused.done()
        assert calls.sent[0]["status"] == 429
        assert b"The long bodies of other requests hold 2.4 MB already" in calls.sent[1]["body"]
        waiting += [calls.call(SHORT_BYTES, path) for _ in range(50)]
        await settled()
        assert calls.read[LONG_BODIES:] == [SHORT_BYTES] * 50
        calls.let.set()  # their answers begin
        await settled()
        waiting += [calls.call(LONG, path) for _ in range(2 * LONG_BODIES)]
        await settled()
        assert calls.read[-2 * LONG_BODIES :] == [LONG] * 2 * LONG_BODIES
        for each in waiting:
            each.cancel()

    asyncio.run(work())


def test_who_leaves_or_is_refused_leaves_nothing_held() -> None:
    async def work() -> None:
        calls = Calls()
        for _ in range(20):
            await calls.call(LONG, leaves=True)
        waiting = [calls.call(LONG) for _ in range(LONG_BODIES)]
        await settled()
        await calls.call(LONG)  # refused
        assert [message["status"] for message in calls.sent[::2]] == [429]
        for each in waiting:
            each.cancel()
        await settled()
        again = [calls.call(LONG) for _ in range(LONG_BODIES)]
        await settled()
        assert calls.read == [LONG] * 2 * LONG_BODIES
        for each in again:
            each.cancel()

    asyncio.run(work())
