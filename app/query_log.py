"""The query log's way off the request: searches wait in a bounded queue and are written down in batches by a thread.

Which searches are kept follows from their id alone, so that every replica says the same of each without asking. A crash
loses what still waited (half a second's searches); feedback is acknowledged once it is stored.
"""

import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from app.again import Again
from app.errors import SearchNotLogged, Unavailable
from app.registry import NewSearch, QueryRecords

log = logging.getLogger("adiabat.queries")

WRITE_S = 0.5
TRIM_S = 60.0
PATIENCE_S = 5.0
AT_ONCE = 100  # rows in one transaction: other writers wait no longer than for these
MAX_WAITING = 10_000
MAX_TEAMS = 100  # of the hits of an interleaved search: a click further down speaks for neither encoder
MAX_FILTER_CHARS = 8_192
DAY_S = 24 * 3600.0
SAMPLED_OF = 2**32


class Observer(Protocol):
    def logged(self, outcome: str, count: int) -> None: ...


def new_search_id() -> str:
    return secrets.token_hex(16)


class QueryLog:
    """`share` of the searches is kept, 0: none; `forgotten` hears when some left by their age or number."""

    def __init__(
        self,
        records: QueryRecords,
        observer: Observer,
        forgotten: Callable[[], None],
        *,
        share: float,
        days: float,
        rows: int,
    ) -> None:
        self._records = records
        self._observer = observer
        self._forgotten = forgotten
        self.share = share
        self._days = days
        self._rows = rows
        self._waiting: deque[tuple[NewSearch, float]] = deque()
        self._writing = threading.Lock()
        self._trimmed_at = float("-inf")
        self._again = Again("query-log", self._pause_s, self._write_waiting, self._trim_in_time, log=log)

    def start(self) -> None:
        self._again.start()

    def stop(self) -> None:
        """What waits is written down, if the registry answers."""
        self._again.stop()
        self._again.quietly(self._write_waiting)

    def keeps(self, search_id: str) -> bool:
        return int(search_id[:8], 16) < self.share * SAMPLED_OF

    def offer(self, search: NewSearch) -> None:
        """Never waits: over `MAX_WAITING` it is dropped, and counted."""
        if len(self._waiting) >= MAX_WAITING:
            self._observer.logged("dropped", 1)
            return
        self._waiting.append((search, time.monotonic()))

    def require_kept(self, search_id: str) -> None:
        """Raises `SearchNotLogged` for a search that never was in the log."""
        if not self.keeps(search_id):
            why = "the query log is off" if self.share == 0 else f"{self.share:.2%} of the searches are kept"
            raise SearchNotLogged(
                f"The search {search_id!r} is not in the query log, so nothing can be said of it: {why} "
                "(ADIABAT_QUERY_LOG), and which ones are kept follows from their ids."
            )

    def flush(self) -> None:
        """What was offered before this call is in the registry when it returns. Raises `Unavailable`."""
        if not self._writing.acquire(timeout=PATIENCE_S):
            raise Unavailable("The query log is being written and does not come to its end; repeat the call.")
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
                self._write(batch)
        finally:
            self._writing.release()

    def trim(self) -> None:
        if self._records.trim(max_age_s=self._days * DAY_S, max_rows=self._rows):
            self._forgotten()

    def _pause_s(self) -> float:
        return WRITE_S if self.share else TRIM_S

    def _write_waiting(self) -> None:
        if self._waiting:
            self.flush()

    def _trim_in_time(self) -> None:
        if time.monotonic() - self._trimmed_at >= TRIM_S:
            self._trimmed_at = time.monotonic()
            self.trim()

    def _write(self, batch: list[tuple[NewSearch, float]]) -> None:
        told = time.monotonic()
        rows = [(as_text(search), told - at) for search, at in batch if _has_small_filter(search)]
        try:
            if rows:
                self._records.add(rows)
        except Unavailable:
            self._waiting.extendleft(reversed(batch))
            raise
        except Exception:
            self._observer.logged("dropped", len(batch))
            raise
        self._observer.logged("stored", len(rows))
        self._observer.logged("dropped", len(batch) - len(rows))


def as_text(search: NewSearch) -> NewSearch:
    """As every database keeps it: PostgreSQL has no NUL in its texts."""
    query = " ".join(search.query.replace("\0", " ").split())
    return replace(search, query=query, teams=search.teams and search.teams[:MAX_TEAMS])


def _has_small_filter(search: NewSearch) -> bool:
    return search.filter is None or len(json.dumps(search.filter)) <= MAX_FILTER_CHARS
