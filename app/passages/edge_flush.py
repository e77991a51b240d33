"""Groups fsyncs: many writes, one sync, at most `within_s` later; at once where somebody waits for it."""

import logging
import threading
from collections.abc import Callable

from app.errors import Unavailable

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after a sync that failed


class Flusher:
    """Calls `sync` in its own thread. A write takes a ticket, which is durable once a later sync ended."""

    def __init__(self, sync: Callable[[], None], within_s: float = 0.2) -> None:
        self._sync = sync
        self._within_s = within_s
        self._changed = threading.Condition()
        self._written = self._tried = self._synced = 0
        self._waiting = 0
        self._stopping = False
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="passages-flush", daemon=True)
        self._thread.start()

    def written(self) -> int:
        """Call after each write. Returns its ticket."""
        with self._changed:
            self._written += 1
            self._changed.notify_all()
            return self._written

    def wait(self, ticket: int | None = None) -> None:
        """Returns when the write of `ticket` (None: every one so far) is on disk. Raises Unavailable."""
        with self._changed:
            ticket = self._written if ticket is None else ticket
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._tried >= ticket or not self._thread.is_alive())
            self._waiting -= 1
            if self._synced < ticket:
                raise Unavailable(f"The passages are written but not yet safe from power loss: {self._problem}.")

    def close(self) -> None:
        """Syncs what is left."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while self._wait_for_work():
            with self._changed:
                # Read before the sync: a write that comes during it belongs to the next one.
                ticket = self._written
            self._try_sync(ticket)

    def _wait_for_work(self) -> bool:
        with self._changed:
            failed = self._tried > self._synced
            self._changed.wait_for(lambda: self._stopping or self._written > self._tried, RETRY_S if failed else None)
            if self._written > self._tried:
                self._changed.wait_for(lambda: self._stopping or self._waiting, timeout=self._within_s)
                return True
            return failed and not self._stopping

    def _try_sync(self, ticket: int) -> None:
        problem = ""
        try:
            self._sync()
        except Exception as error:
            if not self._problem:
                log.exception("Passages could not be flushed; it is tried again every %g s", RETRY_S)
            problem = str(error) or type(error).__name__
        with self._changed:
            self._tried, self._problem = ticket, problem
            if not problem:
                self._synced = ticket
            self._changed.notify_all()
