"""Passages as lines of JSON, any number of them: stored batch by batch while the rest is still on its way.

Memory stays bounded: a few batches and one line per stream, and few streams at once. Knows no HTTP.
"""

import asyncio
import errno
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from app.errors import AdiabatError, InvalidField, Overloaded, Unavailable
from app.ingest import Ingest, Ingested
from app.lines import Cutter, Line
from app.passages import Passage
from app.wire import findings
from app.wire.passages import MAX_BAD_LINES, PassageLine

BATCH_LINES = 256
BATCH_BYTES = 2**20
IN_FLIGHT = 2  # batches at the lanes: the second has the cores that the end of the first leaves idle
MAX_STREAMS = 8
PROBLEM_CHARS = 300

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    line: int
    problem: str


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
    through: int = 0  # the number of the last line up to which everything is stored


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    passages: dict[str, Passage]  # by id: of a repeated one the last
    bad: list[BadLine]
    lines: int
    through: int


class Intake:
    """Takes streams of lines; at most `max_line_bytes` of each line."""

    def __init__(self, ingest: Ingest, max_line_bytes: int) -> None:
        self._ingest = ingest
        self._max_line_bytes = max_line_bytes
        self.streams = 0

    async def take(self, chunks: AsyncIterable[bytes]) -> Taken:
        """Everything that can be stored is, and on disk, when this returns; bad lines are told.

        Raises `Overloaded` at once where too many streams are open. What fails half-way says in its detail, and
        as `stored_through_line`, up to which line everything is stored.
        """
        if self.streams == MAX_STREAMS:
            raise Overloaded(f"{MAX_STREAMS} streams of passages are open, and no more may be; try again in a moment.")
        self.streams += 1
        run = _Run(self._ingest, self._max_line_bytes)
        try:
            async with aclosing(_batches(chunks, self._max_line_bytes)) as batches:
                async for lines in batches:
                    await run.add(lines)
            return await run.end()
        except (AdiabatError, OSError) as error:
            raise _half_way(error, run.taken.through) from error
        finally:
            await run.close()
            self.streams -= 1


class _Run:
    """One stream: a thread that reads batches, and the batches at the lanes, oldest first."""

    def __init__(self, ingest: Ingest, max_line_bytes: int) -> None:
        self.taken = Taken()
        self._ingest = ingest
        self._max_line_bytes = max_line_bytes
        self._pending: deque[tuple[Batch, asyncio.Future[Ingested]]] = deque()
        # Threads of its own: in a pool that others share, streams of minutes would keep quick calls waiting.
        self._threads = ThreadPoolExecutor(IN_FLIGHT + 1, thread_name_prefix="intake")

    async def add(self, lines: list[Line]) -> None:
        batch = await self._in_thread(lambda: self._read(lines))
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
        return self.taken

    async def close(self) -> None:
        """Waits for what has begun: it is stored, or not, before the stream's end is told."""
        await asyncio.gather(*(done for _, done in self._pending), return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def _settle(self) -> None:
        batch, done = self._pending[0]
        ingested = await done
        self._pending.popleft()
        self.taken.embedded += ingested.embedded
        self.taken.metadata_updated += ingested.metadata_updated
        self.taken.unchanged += ingested.unchanged
        self.taken.through = batch.through

    def _names_again(self, batch: Batch) -> bool:
        return any(not batch.passages.keys().isdisjoint(earlier.passages) for earlier, _ in self._pending)

    def _count(self, batch: Batch) -> None:
        self.taken.lines += batch.lines
        self.taken.repeated += batch.lines - len(batch.bad) - len(batch.passages)
        self.taken.bad_line_count += len(batch.bad)
        self.taken.bad_lines += batch.bad[: MAX_BAD_LINES - len(self.taken.bad_lines)]

    def _read(self, lines: Sequence[Line]) -> Batch:
        passages: dict[str, Passage] = {}
        bad = []
        for number, content in lines:
            try:
                passage = self._passage(content)
            except ValidationError as error:
                bad.append(BadLine(line=number, problem=findings.of_line(error)[:PROBLEM_CHARS]))
            except InvalidField as error:
                bad.append(BadLine(line=number, problem=error.detail[:PROBLEM_CHARS]))
            else:
                passages[passage.id] = passage
        return Batch(passages=passages, bad=bad, lines=len(lines), through=lines[-1].number)

    def _passage(self, content: bytes | None) -> Passage:
        """Raises `ValidationError` or `InvalidField`."""
        if content is None:
            raise InvalidField("line", f"is longer than {self._max_line_bytes} bytes (ADIABAT_MAX_BODY_BYTES).")
        given = PassageLine.model_validate_json(content)
        passage = Passage(id=given.id, text=given.text, title=given.title, metadata=given.metadata)
        self._ingest.check(passage)
        return passage

    def _in_thread(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


async def _batches(chunks: AsyncIterable[bytes], max_line_bytes: int) -> AsyncGenerator[list[Line], None]:
    cutter = Cutter(max_line_bytes)
    batch: list[Line] = []
    size = 0
    async for chunk in chunks:
        for line in cutter.feed(chunk):
            batch.append(line)
            size += len(line.content or b"")
            if len(batch) == BATCH_LINES or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    batch += cutter.end()
    if batch:
        yield batch


def _half_way(error: AdiabatError | OSError, through: int) -> Exception:
    """The error with what a client needs to go on: up to which line everything is stored."""
    if isinstance(error, OSError):
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        error = Unavailable("The disk is full; free some space.")
    stored = f"Everything up to line {through} is stored" if through else "No line is known to be stored"
    error.detail += f" {stored}; send the lines from {through + 1} on again."
    error.data["stored_through_line"] = through
    return error
