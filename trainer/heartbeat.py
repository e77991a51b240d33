"""A thread that writes progress and a sign of life to the registry, and brings back a request to cancel."""

import threading
from contextlib import suppress
from typing import Any

from app.errors import AdiabatError
from app.registry import Registry
from app.registry.clocks import ClockWatch
from app.registry.job_records import AT_WORK

INTERVAL_S = 1.0


class Heartbeat:
    """Beats for `worker` while the block lasts; between `follow` and `unfollow` for a job too, as its `holder`."""

    def __init__(self, registry: Registry, worker: str, holder: str, stop: threading.Event) -> None:
        self._registry = registry
        self._worker = worker
        self._holder = holder
        self._stop = stop
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._job_id: str | None = None
        self._progress: dict[str, Any] = {}
        self._clock_watch = ClockWatch()
        self._turn = threading.Lock()  # of who changes what is followed, or judges it
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._registry.workers.leave(self._worker)

    def follow(self, job_id: str) -> None:
        with self._turn:
            self._cancelled.clear()
            self._progress = {}
            self._job_id = job_id

    def unfollow(self) -> None:
        """From here on no beat touches the job: its last status must stay the last."""
        self._job_id = None

    def say(self, **progress: Any) -> None:
        """What the next beat will report. Cheap: called at every step."""
        self._progress = progress

    def should_stop(self) -> bool:
        return self._cancelled.is_set() or self._stop.is_set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(AdiabatError):  # the registry is busy or away: the next beat tries again
                self._beat()
            self._ended.wait(INTERVAL_S)

    def _beat(self) -> None:
        self._clock_watch.look(self._registry.workers.beat(self._worker))
        with self._turn:
            job_id, progress = self._job_id, self._progress
        if job_id and self._registry.jobs.report(job_id, progress, held_by=self._holder) not in AT_WORK:
            with self._turn:
                if job_id == self._job_id:  # the word about a job that was followed before must not end this one
                    self._cancelled.set()  # somebody asked, or took this trainer for dead: the job is not ours any more
