"""The slot: the one place in a process that holds the active encoder.

Readers take `slot.current` once and keep what they got. A swap replaces that one reference, so no request
waits for it, fails by it or sees two encoders.
"""

import time
from dataclasses import dataclass

from app.encoders.loaded import LoadedEncoder
from app.errors import Unavailable
from app.registry import EncoderRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Active:
    encoder: LoadedEncoder
    generation: int
    previous: EncoderRecord | None  # what a rollback would activate


class Slot:
    def __init__(self) -> None:
        self._current: Active | None = None

    @property
    def current(self) -> Active:
        current = self._current
        if current is None:
            raise Unavailable("The service is still loading its active encoder; ask /health/ready.")
        return current

    def pinned_ids(self) -> set[int]:
        """Ids of the active encoder and of the one that a rollback would activate."""
        current = self._current
        if current is None:
            return set()
        return {current.encoder.record.id} | ({current.previous.id} if current.previous else set())

    def swap(self, active: Active) -> float:
        """Replace the reference; microseconds it took."""
        started = time.perf_counter_ns()
        self._current = active
        return (time.perf_counter_ns() - started) / 1000
