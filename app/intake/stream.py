"""One stream of lines from its first byte to its answer. Knows no HTTP.

Memory stays bounded: a few batches and one line per stream, and few streams at once.
"""

import asyncio
import errno
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from app.errors import AdiabatError, Overloaded, Unavailable
from app.ingest import Ingest, Ingested
from app.intake.batches import BadLine, Batch, in_batches, read_batch
from app.intake.lines import Line
from app.wire.passages import MAX_BAD_LINES

IN_FLIGHT = 2  # batches at the lanes: the second has the cores that the end of the first leaves idle
MAX_STREAMS = 8
LOOK_S = 0.5  # a stream whose bytes do not come looks this often whether the service stops

Result = TypeVar("Result")


@dataclass(kw_only=True, slots=True)
class Taken:
    """`lines` is the sum of the other counts: every line that is not blank has one fate."""

    lines: int = 0
    embedded: int = 0
    metadata_updated: int = 0
    unchanged: int = 0
    repeated: int = 0  # lines whose id came again later in the same batch; in a later batch it replaces, uncounted
    bad_line_count: int = 0
    bad_lines: list[BadLine] = field(default_factory=list)  # the first MAX_BAD_LINES


class Intake:
    """Takes streams of lines; at most `max_line_bytes` of each line."""

    def __init__(self, ingest: Ingest, max_line_bytes: int) -> None:
        self._ingest = ingest
        self._max_line_bytes = max_line_bytes
        self._closed = False
        self.streams = 0  # open now

    def close(self) -> None:
        """End every stream at its next look, with what is certain: a server that stops waits for its answers."""
        self._closed = True

    async def take(self, chunks: AsyncIterable[bytes]) -> Taken:
        """Everything that can be stored is, and on disk, when this returns; bad lines are told.

        Raises `Overloaded` at once where too many streams are open. What fails half-way says in its detail, and
        as `stored_through_line`, up to which line everything is stored.
        """
        if self.streams == MAX_STREAMS:
            raise Overloaded(f"{MAX_STREAMS} streams of passages are open, and no more may be; try again in a moment.")
        self.streams += 1
        run = _Run(self._ingest)
        try:
            async with (
                aclosing(self._until_closed(chunks, run)) as arriving,
                aclosing(in_batches(arriving, self._max_line_bytes)) as batches,
            ):
                async for lines in batches:
                    await run.add(lines)
            return await run.end()
        except AdiabatError as error:
            _tell(error, run.through)
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            full = Unavailable("The disk is full; free some space.")
            _tell(full, run.through)
            raise full from error
        finally:
            await run.close()
            self.streams -= 1

    async def _until_closed(self, chunks: AsyncIterable[bytes], run: "_Run") -> AsyncGenerator[bytes, None]:
        iterator = aiter(chunks)
        while True:
            coming = asyncio.ensure_future(_next(iterator))
            try:
                while not self._closed and not coming.done():
                    await asyncio.wait({coming}, timeout=LOOK_S)
                if self._closed:
                    await run.end()  # what has begun is certain then
                    raise Unavailable("The service is stopping.")
                chunk = await coming
            finally:
                coming.cancel()
            if chunk is None:
                return
            yield chunk


class _Run:
    """A stream's batches at the lanes, oldest first, and what came of the earlier ones."""

    def __init__(self, ingest: Ingest) -> None:
        self.through = 0  # the number of the last line up to which everything is stored
        self._taken = Taken()
        self._ingest = ingest
        self._pending: deque[tuple[Batch, asyncio.Future[Ingested]]] = deque()
        # Threads of its own: in a pool that others share, streams of minutes would keep quick calls waiting.
        self._threads = ThreadPoolExecutor(IN_FLIGHT + 1, thread_name_prefix="intake")

    async def add(self, lines: list[Line]) -> None:
        batch = await self._in_thread(lambda: read_batch(lines, self._ingest))
        self._count(batch)
        # Of two batches at the lanes either may be written first: one that names a passage again must wait.
        while self._pending and (len(self._pending) == IN_FLIGHT or self._names_again(batch)):
            await self._settle()
        passages = list(batch.passages.values())
        self._pending.append((batch, self._in_thread(lambda: self._ingest.write(passages))))

    async def end(self) -> Taken:
        while self._pending:
            await self._settle()
        await self._in_thread(self._ingest.flush)
        return self._taken

    async def close(self) -> None:
        """Waits for what has begun: it is stored, or not, before the stream's end is told."""
        await asyncio.gather(*(done for _, done in self._pending), return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def _settle(self) -> None:
        batch, done = self._pending[0]
        ingested = await done
        self._pending.popleft()
        self._taken.embedded += ingested.embedded
        self._taken.metadata_updated += ingested.metadata_updated
        self._taken.unchanged += ingested.unchanged
        self.through = batch.through

    def _names_again(self, batch: Batch) -> bool:
        return any(not batch.passages.keys().isdisjoint(earlier.passages) for earlier, _ in self._pending)

    def _count(self, batch: Batch) -> None:
        self._taken.lines += batch.lines
        self._taken.repeated += batch.lines - len(batch.bad) - len(batch.passages)
        self._taken.bad_line_count += len(batch.bad)
        self._taken.bad_lines += batch.bad[: MAX_BAD_LINES - len(self._taken.bad_lines)]

    def _in_thread(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


def _tell(error: AdiabatError, through: int) -> None:
    """What a client needs to go on: up to which line everything is stored."""
    stored = f"Everything up to line {through} is stored" if through else "No line is known to be stored"
    error.detail += f" {stored}; send the lines from {through + 1} on again."
    error.data["stored_through_line"] = through
