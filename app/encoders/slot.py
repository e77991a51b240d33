"""The slot: the one place in a process that holds the active encoder.

Readers take `slot.current` once and keep what they got. A swap replaces that one reference, so no request
waits for it, fails by it or sees two encoders.
"""

import hashlib
import time
from dataclasses import dataclass

from app.encoders.loaded import LoadedEncoder
from app.encoders.routes import LoadedRoute
from app.errors import Unavailable
from app.registry import EncoderRecord, Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A second encoder for `percent` of the requests: the same ones again and again, by what `sticky_by` names.

    Where they `interleave`, both answer those together.
    """

    encoder: LoadedEncoder
    percent: float
    sticky_by: str  # "key", or a header
    interleave: bool = False
    rules: Rules | None = None

    def unit(self, value: str | None) -> str | None:
        """Who asks, as an experiment knows them: a hash; None for a request that says nothing."""
        if value is None:
            return None
        return hashlib.blake2b(f"{self.encoder.record.digest} {value}".encode(), digest_size=8).hexdigest()

    def takes(self, unit: str | None) -> bool:
        """A request that says nothing stays with the active encoder, but where all are taken.

        Of the same encoder a greater share takes all that a smaller one took, so nobody is sent to and fro.
        """
        return self.percent >= 100 or (unit is not None and int(unit, 16) < self.percent / 100 * 2**64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Active:
    encoder: LoadedEncoder
    generation: int  # that made it active
    reached: int  # the newest that is taken up here: it may have changed a route alone
    previous: EncoderRecord | None  # what was active before: there a rollback goes, or only ends the split
    split: Split | None = None
    routes: tuple[LoadedRoute, ...] = ()  # by name

    def in_use(self) -> list[LoadedEncoder]:
        """Every encoder that requests get from here."""
        beside = [self.split.encoder] if self.split else []
        of_routes = [each for route in self.routes for each in (route.encoder, route.base) if each is not None]
        return [self.encoder, *beside, *of_routes]


class Slot:
    def __init__(self) -> None:
        self._current: Active | None = None

    @property
    def current(self) -> Active:
        current = self._current
        if current is None:
            raise Unavailable("The service is still loading its active encoder; ask /health/ready.")
        return current

    @property
    def filled(self) -> Active | None:
        """As `current`; None before the first swap."""
        return self._current

    def pinned_ids(self) -> set[int]:
        """Ids of the active encoder, of the one before it, and of those that answer beside it."""
        current = self._current
        if current is None:
            return set()
        return {each.record.id for each in current.in_use()} | ({current.previous.id} if current.previous else set())

    def swap(self, active: Active) -> float:
        """Replace the reference; microseconds it took."""
        started = time.perf_counter_ns()
        self._current = active
        return (time.perf_counter_ns() - started) / 1000
