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
from app.encoders.slot import Active, Slot, Split
from app.errors import AdiabatError, Conflict, EncoderBroken, StaleGeneration, Unavailable
from app.registry import Activation, EncoderRecord, EncoderState, NewCanary, Registry, Rules
from app.registry.activations import AlsoOfActivation, Reason

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
        note: str | None = None,
        also: AlsoOfActivation | None = None,
    ) -> Switched:
        """Make `name@version` active. Raises `StaleGeneration`, `Conflict`, `EncoderBroken`, `EncoderNotFound`.

        `also` is done in the transaction that writes the generation.
        """
        with self._refusals_told(reason):
            record = self._registry.encoders.get(name, version)
            self._check_state(record, force)
            return self._switch_to(
                record,
                forced=force,
                expected=expected,
                timeout_s=timeout_s,
                reason=reason,
                note=note,
                also=also,
            )

    def split(
        self,
        name: str,
        version: int | None,
        *,
        percent: float,
        sticky_by: str,
        interleave: bool = False,
        rules: Rules | None = None,
        force: bool = False,
        expected: int | None = None,
        timeout_s: float | None = None,
        note: str | None = None,
        also: AlsoOfActivation | None = None,
    ) -> Switched:
        """Let `name@version` answer `percent` of the requests beside the active one, or with it. Raises as `activate`
        does."""
        with self._refusals_told("canary"):
            record = self._registry.encoders.get(name, version)
            self._check_state(record, force)
            newest = self._registry.activations.newest(1)[0]
            if newest.encoder_id == record.id:
                raise Conflict(
                    f"{record.key} is active and answers all requests: a canary is another encoder beside it."
                )
            return self._switch_to(
                self._registry.encoders.by_id(newest.encoder_id),
                forced=force,
                expected=newest.generation if expected is None else expected,  # as below: beside what was read
                timeout_s=timeout_s,
                reason="canary",
                canary=NewCanary(
                    encoder_id=record.id, percent=percent, sticky_by=sticky_by, interleave=interleave, rules=rules
                ),
                note=note,
                also=also,
            )

    def rollback(self, *, expected: int | None = None) -> Switched:
        """Activate what was active before, as a new generation; where there is a canary, only end it."""
        with self._refusals_told("rollback"):
            newest = self._registry.activations.standing()
            if len(newest) < 2 and newest[0].canary is None:
                raise Conflict("There is nothing to roll back to: no encoder was active before this one.")
            record = self._registry.encoders.by_id(newest[0 if newest[0].canary else 1].encoder_id)
            # Read-then-write: the history may grow in between, so the write insists on what was read.
            expected = newest[0].generation if expected is None else expected
            return self._switch_to(record, forced=False, expected=expected, timeout_s=None, reason="rollback")

    def end_canary(self, generation: int, note: str, also: AlsoOfActivation | None = None) -> Switched:
        """Only that of this generation, by a rule. Raises `StaleGeneration` where it has ended already."""
        with self._refusals_told("rule"):
            newest = self._registry.activations.newest(1)[0]
            record = self._registry.encoders.by_id(newest.encoder_id)
            return self._switch_to(
                record, forced=False, expected=generation, timeout_s=None, reason="rule", note=note, also=also
            )

    def start(self, others_have: Callable[[int], bool] = lambda _: False) -> None:
        """Take up the generation the service had; the base, as a new generation, if that encoder is gone.

        Where `others_have` it, it is not gone: raises `EncoderBroken`, and the others serve on. Nor where its files do
        not answer: raises `Unavailable`.
        """
        newest = self._registry.activations.standing()
        base = self._registry.encoders.find(BASE_KEY)
        if not newest:
            self._append_and_swap(base, None, reason="start")
            return
        record = self._registry.encoders.by_id(newest[0].encoder_id)
        wanted = record
        try:
            previous = self._registry.encoders.by_id(newest[1].encoder_id) if len(newest) == 2 else None
            loaded, beside = self._pool.get(record), None
            if newest[0].canary is not None:
                wanted = self._registry.encoders.by_id(newest[0].canary.encoder_id)
                beside = self._pool.get(wanted)
            self._swap(loaded, newest[0], previous, beside)
        except Exception as error:  # whatever it is, the base serves; for a canary the active one does
            if wanted.key == BASE_KEY or isinstance(error, Unavailable):
                raise
            if others_have(newest[0].generation):
                raise EncoderBroken(
                    f"{wanted.key}, generation {newest[0].generation}, cannot be loaded here, and other services on "
                    f"this registry serve it: {error}"
                ) from error
            serving = base if wanted is record else record
            self.fallback_reason = f"{wanted.key} could not be loaded, serving {serving.key}: {error}"
            log.error(self.fallback_reason)
            self._mark_broken(wanted)
            self._append_and_swap(serving, record if serving is base else previous, reason="fallback")

    def follow(self) -> None:
        """Take up the generation that another service made. Raises what loading raises; the old one stays then."""
        newest = self._registry.activations.standing()
        if newest[0].generation <= self._slot.current.generation:
            return
        record = self._registry.encoders.by_id(newest[0].encoder_id)
        loaded = self._pool.get(record)  # that it is broken is not said for all: it may be so in this place alone
        wanted = newest[0].canary
        canary = self._pool.get(self._registry.encoders.by_id(wanted.encoder_id)) if wanted else None
        with self._lock:
            switch_us = self._take_up(loaded, newest, canary)
            self._stay(loaded, canary)
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
        """Active, canary, previous and base stay in memory."""
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
        canary: NewCanary | None = None,
        note: str | None = None,
        also: AlsoOfActivation | None = None,
    ) -> Switched:
        if expected is not None:
            self._require(expected)
        new = canary.encoder_id if canary else record.id
        resident = any(encoder.record.id == new for encoder in self._pool.resident())
        loaded, beside = self._load(record, timeout_s), self._canary(canary, timeout_s)
        with self._lock:
            advanced = self._registry.activations.advance(
                record.id, reason=reason, forced=forced, expected=expected, canary=canary, note=note, also=also
            )
            switch_us = self._take_up(loaded, advanced.standing, beside)
            active = self._slot.current  # before the lock goes: the next switch is somebody else's
            self._stay(loaded, beside)
            if not advanced.changed:
                # Activating what is active changes nothing: a new generation would only hide the way back.
                self._observer.not_switched(reason, "unchanged")
                return Switched(active=active, load_ms=0, warmup_ms=0, switch_us=0)
        self._observer.switched(reason, switch_us)
        self._pool.trim()  # what was previous is not pinned any more
        brought = beside or loaded
        return Switched(
            active=active,
            load_ms=0 if resident else brought.load_ms,
            warmup_ms=0 if resident else brought.warmup_ms,
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

    def _canary(self, wanted: NewCanary | None, timeout_s: float | None) -> LoadedEncoder | None:
        """Loaded and verified, as what is to be active."""
        return None if wanted is None else self._load(self._registry.encoders.by_id(wanted.encoder_id), timeout_s)

    def _stay(self, *swapped: LoadedEncoder | None) -> None:
        """They may have left between load and swap; the slot has them, so they come back at once."""
        for each in swapped:
            if each is not None:
                self._pool.get(each.record)

    def _take_up(self, loaded: LoadedEncoder, newest: list[Activation], canary: LoadedEncoder | None) -> float:
        """Swap, unless this process is further already: another service may have gone on while it was held up."""
        if newest[0].generation <= self._slot.current.generation:
            return 0.0
        switch_us = self._swap(loaded, newest[0], self._before(newest), canary)
        self.fallback_reason = None
        return switch_us

    def _before(self, newest: list[Activation]) -> EncoderRecord | None:
        """What a rollback would activate. Mostly what is here now: the registry may have gone away by this moment."""
        if len(newest) < 2:
            return None
        for known in (self._slot.current.encoder.record, self._slot.current.previous):
            if known is not None and known.id == newest[1].encoder_id:
                return known
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
            switch_us = self._swap(loaded, self._registry.activations.append(record.id, reason=reason), previous, None)
        self._observer.switched(reason, switch_us)

    def _swap(
        self,
        loaded: LoadedEncoder,
        activation: Activation,
        previous: EncoderRecord | None,
        canary: LoadedEncoder | None,
    ) -> float:
        said, split = activation.canary, None
        if said is not None and canary is not None:
            split = Split(
                encoder=canary,
                percent=said.percent,
                sticky_by=said.sticky_by,
                interleave=said.interleave,
                rules=said.rules,
            )
        return self._slot.swap(Active(encoder=loaded, generation=activation.generation, previous=previous, split=split))

    def _check_state(self, record: EncoderRecord, force: bool) -> None:
        if record.state is EncoderState.DELETED:
            raise Conflict(f"{record.key} was deleted and cannot become active.")
        if record.state is EncoderState.REJECTED and not force:
            raise Conflict(
                f"{record.key} was rejected by its gate ({record.metrics.get('verdict', 'see its metrics')}); "
                "send force=true to activate it all the same."
            )
