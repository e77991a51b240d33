"""What happens to a tuning job as server-sent events, for any number of followers.

A follower holds a coroutine and no thread: between two looks at the registry it sleeps, and all who stand at the same
event share one look.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import orjson

from app.errors import Unavailable
from app.registry import EventKind, JobEvent

POLL_S = 0.5
HEARTBEAT_S = 15.0
LOOKS = 2  # at once
PAGE = 500
RETRY = b"retry: 2000\n\n"  # how long a browser waits before it comes back
HEARTBEAT = b": still here\n\n"

Read = Callable[[str, int, int], list[JobEvent]]  # (job id, after, limit)


class EventStreams:
    """`read` gives a job's events after a number, oldest first; it may block and is called in threads of its own:
    slow calls of others hold up no follower, and followers no call."""

    def __init__(self, read: Read, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._read = read
        self._heartbeat_s = heartbeat_s
        self._threads = ThreadPoolExecutor(LOOKS, thread_name_prefix="events")
        self._looks: dict[tuple[str, int], asyncio.Future[list[JobEvent]]] = {}
        self._closed = False
        self.followers = 0

    def close(self) -> None:
        """End every stream at its next look: a server that stops waits for its answers to end."""
        self._closed = True

    async def follow(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """Events after number `after`, then new ones as they come, until the job has ended."""
        self.followers += 1
        try:
            yield RETRY
            spoke_at, ended = time.monotonic(), False
            while not self._closed:
                events = await self._look(job_id, after)
                for event in events:
                    yield framed(event)
                if events:
                    spoke_at, after, ended = time.monotonic(), events[-1].sequence, events[-1].kind is EventKind.END
                if len(events) == PAGE:  # there may be more, even after an end: the job was resumed then
                    continue
                if ended:
                    return
                if time.monotonic() - spoke_at >= self._heartbeat_s:
                    spoke_at = time.monotonic()
                    yield HEARTBEAT
                await asyncio.sleep(POLL_S - time.monotonic() % POLL_S)  # all wake at once, to share the look
        finally:
            self.followers -= 1

    async def _look(self, job_id: str, after: int) -> list[JobEvent]:
        key = (job_id, after)
        if key not in self._looks:
            look = asyncio.get_running_loop().run_in_executor(self._threads, self._read, job_id, after, PAGE)
            look.add_done_callback(lambda _: self._looks.pop(key, None))
            self._looks[key] = look
        with suppress(Unavailable):  # the registry is busy: the next look may find it
            return await asyncio.shield(self._looks[key])  # one follower's leaving must not end the others' look
        return []


def framed(event: JobEvent) -> bytes:
    body = {"sequence": event.sequence, "at": event.at, "kind": event.kind, "data": event.data}
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.sequence, event.kind.encode(), orjson.dumps(body))
