"""One dispatcher per encoder: a run takes whatever is queued when it begins, so batches form by themselves.

Nothing is delayed to fill a batch. Two runs may be under way at once: a run over all cores waits for the slowest of
them at every operator, and one core alone splits its texts into tokens. What goes on with a long request waits in a
line of its own, for one run at low priority, so that no short query waits behind it; passages have lanes of their own
(`lanes.py`) for the same reason.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.encoders.cores import lower_priority
from app.encoders.engine import Engine
from app.encoders.packing import BATCH_TOKENS
from app.errors import Overloaded, Unavailable
from app.spans import tell

Vectors = NDArray[np.float32]


RUNS = 2  # at once
MAX_WAIT_S = 3.0


class Observer(Protocol):
    """Hears of every run, on the run's own thread and after its answers are out."""

    def ran(self, *, texts: int, tokens: int, waited_s: Sequence[float], took_s: float) -> None: ...


@dataclass(eq=False, kw_only=True, slots=True)
class _Job:
    """`texts` carry their prompt already."""

    texts: list[str]
    future: Future[Vectors] = field(default_factory=Future)
    submitted: float = field(default_factory=time.perf_counter)
    waited_s: float = 0.0  # and so many texts were in its run: once there are vectors
    batch_texts: int = 0

    def tokens(self) -> int:
        return sum(map(guessed_tokens, self.texts))


def guessed_tokens(text: str) -> int:
    """Good enough to keep one batch from holding everything that waits."""
    return len(text) // 4 + 2


class _Line:
    """Jobs that wait for the same workers, the oldest first; `changed` is for who holds the dispatcher's lock."""

    def __init__(self, lock: threading.Lock) -> None:
        self.jobs: deque[_Job] = deque()
        self.changed = threading.Condition(lock)

    def texts(self) -> int:
        return sum(len(job.texts) for job in self.jobs)

    def drop_cancelled(self) -> None:
        self.jobs = deque(job for job in self.jobs if not job.future.cancelled())


class Dispatcher:
    """Owns `engine` and its worker threads: `runs`, and one for what goes on with long requests. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_waiting: int,
        max_wait_s: float = MAX_WAIT_S,
        batch_tokens: int = BATCH_TOKENS,
        runs: int = RUNS,
        observer: Observer | None = None,
    ) -> None:
        self._engine = engine
        self.engine_name = engine.name
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._batch_tokens = batch_tokens
        self._observer = observer
        self._lock = threading.Lock()
        self._queries, self._rest = _Line(self._lock), _Line(self._lock)
        self._waiting = 0  # texts in both
        self._closing = False
        self._closed = threading.Lock()
        name = f"encoder-{engine.name}"
        self._workers = [
            threading.Thread(target=self._work, args=(self._queries,), name=f"{name}-{n}", daemon=True)
            for n in range(runs)
        ]
        self._workers.append(threading.Thread(target=self._work_aside, name=f"{name}-rest", daemon=True))
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """Texts that no run has taken yet."""
        return self._waiting

    def submit(self, texts: list[str], prompt: str = "", *, goes_on: bool = False) -> Future[Vectors]:
        """The future vectors of `prompt` + each text, shape (n, dim).

        Raises `Overloaded` at once where too many queries wait or they wait too long, `Unavailable` after `close`.
        What `goes_on` with a request waits apart, and is not refused for the time it would wait: what was done of it
        would be lost.
        Cancelling the future drops the work unless it has begun.
        """
        return self._queued(texts, prompt, goes_on).future

    async def embed_async(self, texts: list[str], prompt: str = "", *, goes_on: bool = False) -> Vectors:
        """As `submit`, awaited; cancelling the task cancels the work. Tells the open span how it was run."""
        job = self._queued(texts, prompt, goes_on)
        vectors = await asyncio.wrap_future(job.future)
        tell({"adiabat.batch.texts": job.batch_texts, "adiabat.queue_ms": job.waited_s * 1000})
        return vectors

    def _queued(self, texts: list[str], prompt: str, goes_on: bool) -> _Job:
        job = _Job(texts=[prompt + text for text in texts])
        line = self._rest if goes_on else self._queries
        with self._lock:
            if self._closing:
                raise Unavailable("This encoder has been unloaded; repeat the request.")
            self._admit(len(texts), goes_on)
            line.jobs.append(job)
            line.changed.notify()
        return job

    def lengths(self, texts: list[str], prompt: str = "") -> list[int]:
        """Tokens of `prompt` + each text; waits for no run of the engine."""
        return self._engine.lengths([prompt + text for text in texts])

    def close(self, *, drain: bool = True) -> None:
        """Stop taking work, finish what is queued (or cancel it, without `drain`), then close the engine."""
        with self._lock:
            self._closing = True
            for line in (self._queries, self._rest):
                if not drain:
                    for job in line.jobs:
                        job.future.cancel()
                line.changed.notify_all()
        for worker in self._workers:
            worker.join()
        if self._closed.acquire(blocking=False):  # once, however many close
            self._engine.close()

    def _admit(self, texts: int, goes_on: bool) -> None:
        if self._waiting + texts > self._max_waiting:  # only now is it worth looking for cancelled ones
            for line in (self._queries, self._rest):
                line.drop_cancelled()
            self._waiting = self._queries.texts() + self._rest.texts()
        if self._waiting + texts > self._max_waiting:
            raise Overloaded(
                f"{self._waiting} texts wait for the encoder and at most {self._max_waiting} may; "
                "try again in a moment.",
            )
        if not goes_on:
            self._check_wait()
        self._waiting += texts

    def _check_wait(self) -> None:
        """By time too: how many are too many depends on the machine, and thousands cost more than they would alone.

        What the next run takes as a whole is no queue, however long the runs before it last.
        """
        jobs = self._queries.jobs
        while jobs and jobs[0].future.cancelled():
            self._waiting -= len(jobs.popleft().texts)
        if not jobs or (waited_s := time.perf_counter() - jobs[0].submitted) <= self._max_wait_s:
            return
        if sum(job.tokens() for job in jobs) > self._batch_tokens:
            raise Overloaded(
                f"Queries wait for {waited_s:.1f} s for the encoder, and {self._max_wait_s:g} s is the most; "
                "try again in a moment.",
            )

    def _work_aside(self) -> None:
        lower_priority()
        self._work(self._rest)

    def _work(self, line: _Line) -> None:
        while taken := self._take(line):
            if jobs := [job for job in taken if job.future.set_running_or_notify_cancel()]:
                self._embed(jobs)

    def _take(self, line: _Line) -> list[_Job]:
        """The oldest that wait, as many as one batch holds, at least one; waits for it. None once all is done."""
        taken: list[_Job] = []
        room = self._batch_tokens
        with self._lock:
            line.changed.wait_for(lambda: line.jobs or self._closing)
            while line.jobs and (not taken or line.jobs[0].tokens() <= room):
                job = line.jobs.popleft()
                room -= job.tokens()
                self._waiting -= len(job.texts)
                taken.append(job)
        return taken

    def _embed(self, jobs: list[_Job]) -> None:
        """Embed the jobs as one batch; where that fails, each for itself, so that one cannot fail another."""
        began, tokens = time.perf_counter(), self._engine.tokens
        texts = list(dict.fromkeys(text for job in jobs for text in job.texts))  # what several ask is embedded once
        row = {text: n for n, text in enumerate(texts)}
        try:
            vectors = self._engine.embed(texts)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:
                self._embed([job])
            return
        done = time.perf_counter()
        for job in jobs:
            job.waited_s, job.batch_texts = began - job.submitted, len(texts)
            job.future.set_result(vectors[[row[text] for text in job.texts]])
        if self._observer:
            self._observer.ran(
                texts=len(texts),
                tokens=self._engine.tokens - tokens,
                waited_s=[job.waited_s for job in jobs],
                took_s=done - began,
            )
