"""Switching: load and verify first, then the history, then the slot. Any failure leaves the old encoder."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from app.encoders.artifacts import BASE_KEY
from app.encoders.loaded import LoadedEncoder
from app.encoders.pool import EncoderPool
from app.encoders.slot import Active, Slot
from app.errors import AdiabatError, Conflict, EncoderBroken, StaleGeneration, Unavailable
from app.registry import Activation, EncoderRecord, EncoderState, Registry
from app.registry.activations import Reason

log = logging.getLogger("adiabat.switching")

FOLLOWED = "follow"  # for the figures: another service switched, and this one with it


@dataclass(frozen=True, kw_only=True, slots=True)
class Switched:
    active: Active
    load_ms: float
    warmup_ms: float
    switch_us: float


class SwitchObserver(Protocol):
    """Hears how every activation that was asked for ended."""

    def switched(self, reason: str, switch_us: float) -> None: ...

    def not_switched(self, reason: str, outcome: str) -> None: ...


class Switcher:
    """The only writer of the slot. One lock makes history and slot change together in this process."""

    def __init__(self, registry: Registry, pool: EncoderPool, slot: Slot, observer: SwitchObserver) -> None:
        self._registry = registry
        self._pool = pool
        self._slot = slot
        self._observer = observer
        self._lock = threading.Lock()
        self.fallback_reason: str | None = None

    def activate(
        self,
        name: str,
        version: int | None,
        *,
        force: bool = False,
        expected: int | None = None,
        timeout_s: float | None = None,
        reason: Reason = "activate",
    ) -> Switched:
        """Make `name@version` active. Raises `StaleGeneration`, `Conflict`, `EncoderBroken`, `EncoderNotFound`."""
        with self._refusals_told(reason):
            record = self._registry.encoders.get(name, version)
            self._check_state(record, force)
            return self._switch_to(record, forced=force, expected=expected, timeout_s=timeout_s, reason=reason)

    def rollback(self, *, expected: int | None = None) -> Switched:
        """Activate what was active before, as a new generation."""
        with self._refusals_told("rollback"):
            newest = self._registry.activations.newest(2)
            if len(newest) < 2:
                raise Conflict("There is nothing to roll back to: no encoder was active before this one.")
            record = self._registry.encoders.by_id(newest[1].encoder_id)
            # Read-then-write: the history may grow in between, so the write insists on what was read.
            expected = newest[0].generation if expected is None else expected
            return self._switch_to(record, forced=False, expected=expected, timeout_s=None, reason="rollback")

    def start(self, others_have: Callable[[int], bool] = lambda _: False) -> None:
        """Take up the generation the service had; the base, as a new generation, if that encoder is gone.

        Where `others_have` it, it is not gone: raises `EncoderBroken`, and the others serve on. Nor where its files do
        not answer: raises `Unavailable`.
        """
        newest = self._registry.activations.newest(2)
        base = self._registry.encoders.find(BASE_KEY)
        if not newest:
            self._append_and_swap(base, None, reason="start")
            return
        record = self._registry.encoders.by_id(newest[0].encoder_id)
        try:
            previous = self._registry.encoders.by_id(newest[1].encoder_id) if len(newest) == 2 else None
            self._swap(self._pool.get(record), newest[0], previous)
        except Exception as error:  # whatever it is, the base serves
            if record.key == BASE_KEY or isinstance(error, Unavailable):
                raise
            if others_have(newest[0].generation):
                raise EncoderBroken(
                    f"{record.key}, generation {newest[0].generation}, cannot be loaded here, and other services on "
                    f"this registry serve it: {error}"
                ) from error
            self.fallback_reason = f"{record.key} could not be loaded, serving {BASE_KEY}: {error}"
            log.error(self.fallback_reason)
            self._mark_broken(record)
            self._append_and_swap(base, record, reason="fallback")

    def follow(self) -> None:
        """Take up the generation that another service made. Raises what loading raises; the old one stays then."""
        newest = self._registry.activations.newest(2)
        if newest[0].generation <= self._slot.current.generation:
            return
        record = self._registry.encoders.by_id(newest[0].encoder_id)
        loaded = self._pool.get(record)  # that it is broken is not said for all: it may be so in this place alone
        with self._lock:
            switch_us = self._take_up(loaded, newest)
            self._pool.get(record)
        self._observer.switched(FOLLOWED, switch_us)
        self._pool.trim()

    def load_previous(self) -> None:
        """Bring the encoder before the active one back into memory, so that a rollback is a swap."""
        previous = self._slot.current.previous
        if previous is not None:
            try:
                self._pool.get(previous)
            except Exception as error:
                log.warning("The previous encoder %s cannot be loaded, a rollback would fail: %s", previous.key, error)

    def pinned_ids(self) -> set[int]:
        """Active, previous and base stay in memory."""
        return self._slot.pinned_ids() | {self._base_id}

    @cached_property
    def _base_id(self) -> int:
        return self._registry.encoders.find(BASE_KEY).id

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Inside this block nothing is activated."""
        with self._lock:
            yield

    @contextmanager
    def _refusals_told(self, reason: Reason) -> Iterator[None]:
        try:
            yield
        except AdiabatError as error:
            self._observer.not_switched(reason, error.slug)
            raise

    def _switch_to(
        self,
        record: EncoderRecord,
        *,
        forced: bool,
        expected: int | None,
        timeout_s: float | None,
        reason: Reason,
    ) -> Switched:
        if expected is not None:
            self._require(expected)
        resident = any(encoder.record.id == record.id for encoder in self._pool.resident())
        loaded = self._load(record, timeout_s)
        with self._lock:
            advanced = self._registry.activations.advance(record.id, reason=reason, forced=forced, expected=expected)
            switch_us = self._take_up(loaded, advanced.newest)
            active = self._slot.current  # before the lock goes: the next switch is somebody else's
            self._pool.get(record)  # it may have left between load and swap; the slot has it, so it comes back at once
            if not advanced.changed:
                # Activating what is active changes nothing: a new generation would only hide the way back.
                self._observer.not_switched(reason, "unchanged")
                return Switched(active=active, load_ms=0, warmup_ms=0, switch_us=0)
        self._observer.switched(reason, switch_us)
        self._pool.trim()  # what was previous is not pinned any more
        return Switched(
            active=active,
            load_ms=0 if resident else loaded.load_ms,
            warmup_ms=0 if resident else loaded.warmup_ms,
            switch_us=switch_us,
        )

    def _require(self, expected: int) -> None:
        """Early, so that nothing is loaded for a request that is stale; the history insists on it once more."""
        generation = self._registry.activations.newest(1)[0].generation
        if expected != generation:
            raise StaleGeneration(
                f"Generation {expected} was expected, but {generation} is active: "
                "read GET /active-encoder again and repeat with its ETag.",
                generation=generation,
            )

    def _take_up(self, loaded: LoadedEncoder, newest: list[Activation]) -> float:
        """Swap, unless this process is further already: another service may have gone on while it was held up."""
        if newest[0].generation <= self._slot.current.generation:
            return 0.0
        switch_us = self._swap(loaded, newest[0], self._before(newest))
        self.fallback_reason = None
        return switch_us

    def _before(self, newest: list[Activation]) -> EncoderRecord | None:
        """What a rollback would activate. Mostly what is here now: the registry may have gone away by this moment."""
        current = self._slot.current.encoder.record
        if len(newest) < 2 or newest[1].encoder_id == current.id:
            return current if len(newest) == 2 else None
        return self._registry.encoders.by_id(newest[1].encoder_id)

    def _load(self, record: EncoderRecord, timeout_s: float | None) -> LoadedEncoder:
        try:
            loaded = self._pool.get(record, timeout_s)
        except EncoderBroken:
            self._mark_broken(record)
            raise
        if record.state is EncoderState.BROKEN:  # restored from a backup meanwhile
            self._registry.encoders.set_state(record.id, EncoderState.READY)
        return loaded

    def _mark_broken(self, record: EncoderRecord) -> None:
        if record.state is EncoderState.READY and record.key != BASE_KEY:
            self._registry.encoders.set_state(record.id, EncoderState.BROKEN)

    def _append_and_swap(self, record: EncoderRecord, previous: EncoderRecord | None, *, reason: Reason) -> None:
        loaded = self._pool.get(record)
        with self._lock:
            switch_us = self._swap(loaded, self._registry.activations.append(record.id, reason=reason), previous)
        self._observer.switched(reason, switch_us)

    def _swap(self, loaded: LoadedEncoder, activation: Activation, previous: EncoderRecord | None) -> float:
        return self._slot.swap(Active(encoder=loaded, generation=activation.generation, previous=previous))

    def _check_state(self, record: EncoderRecord, force: bool) -> None:
        if record.state is EncoderState.DELETED:
            raise Conflict(f"{record.key} was deleted and cannot become active.")
        if record.state is EncoderState.REJECTED and not force:
            raise Conflict(
                f"{record.key} was rejected by its gate ({record.metrics.get('verdict', 'see its metrics')}); "
                "send force=true to activate it all the same."
            )
