"""Permits for slow work: none is free, and the call is refused at once instead of taking a thread from the others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.errors import Overloaded

MAX_UPSERTS = 8
MAX_ADMISSIONS = 2
MAX_DOWNLOADS = 2
MAX_BACKUPS = 1  # each takes the disk space of the store


class Permits:
    def __init__(self, count: int, work: str) -> None:
        self._free = threading.Semaphore(count)
        self._refusal = f"As many {work} are running as may, {count}; try again in a moment."

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises `Overloaded` where none is free."""
        if not self._free.acquire(blocking=False):
            raise Overloaded(self._refusal)
        try:
            yield
        finally:
            self._free.release()


@dataclass(frozen=True, kw_only=True, slots=True)
class AllPermits:
    upserts: Permits = field(default_factory=lambda: Permits(MAX_UPSERTS, "upserts of passages"))
    admissions: Permits = field(default_factory=lambda: Permits(MAX_ADMISSIONS, "registrations of encoders"))
    downloads: Permits = field(default_factory=lambda: Permits(MAX_DOWNLOADS, "downloads of datasets"))
    backups: Permits = field(default_factory=lambda: Permits(MAX_BACKUPS, "backups"))
