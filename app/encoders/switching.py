"""Switching: load and verify first, then the history, then the slot. Any failure leaves the old encoder."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from app.encoders.artifacts import BASE_KEY
from app.encoders.bringing import Bringer, Broken, Brought
from app.encoders.next_active import next_active
from app.encoders.pool import EncoderPool
from app.encoders.slot import Active, Slot
from app.errors import AdiabatError, Conflict, EncoderBroken, StaleGeneration, Unavailable
from app.registry import EncoderRecord, EncoderState, NewCanary, Registry, RouteTerms, Rules, Serving
from app.registry.activations import Advanced, AlsoOfActivation, Reason
from app.registry.routes import RouteReason, check_expected

log = logging.getLogger("adiabat.switching")

ROUTES_S = 5.0  # for what a switch loads beside what it was asked for
FOLLOWED = "follow"  # for the figures: another service switched, and this one with it


@dataclass(frozen=True, kw_only=True, slots=True)
class Switched:
    active: Active
    generation: int  # that was made, or where nothing changed, that made it so
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
        self._bringer = Bringer(registry, pool, slot)
        self._lock = threading.Lock()
        self._taken = 0  # the newest generation that was taken up, be it without a route that cannot be loaded here
        # By the route that fell back, None for the active encoder or its canary: in which generation, and why.
        self._fallbacks: dict[str | None, tuple[int, str]] = {}

    @property
    def fallback_reason(self) -> str | None:
        """Why something else serves than what was switched to, as long as nothing else is switched to there."""
        return " ".join(said for _, said in self._fallbacks.values()) or None

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
            serving = self._serving()
            back = serving.active if serving.active.canary else serving.previous
            if back is None:
                raise Conflict("There is nothing to roll back to: no encoder was active before this one.")
            record = self._registry.encoders.by_id(back.encoder_id)
            # Read-then-write: the history may grow in between, so the write insists on what was read.
            expected = serving.active.generation if expected is None else expected
            return self._switch_to(record, forced=False, expected=expected, timeout_s=None, reason="rollback")

    def end_canary(self, generation: int, note: str, also: AlsoOfActivation | None = None) -> Switched:
        """Only that of this generation, by a rule. Raises `StaleGeneration` where it has ended already."""
        with self._refusals_told("rule"):
            newest = self._registry.activations.newest(1)[0]
            record = self._registry.encoders.by_id(newest.encoder_id)
            return self._switch_to(
                record, forced=False, expected=generation, timeout_s=None, reason="rule", note=note, also=also
            )

    def set_route(
        self,
        name: str,
        terms: RouteTerms,
        *,
        force: bool = False,
        expected: int | None = None,
        timeout_s: float | None = None,
    ) -> Switched:
        """Let its encoder answer what the route takes. Raises as `activate` does."""
        with self._refusals_told("route"):
            return self._change_route(name, terms, "set", force=force, expected=expected, timeout_s=timeout_s)

    def roll_route_back(self, name: str, *, expected: int | None = None) -> Switched:
        """As it last stood otherwise, where it was removed too. Raises `RouteNotFound`, `Conflict` if it never did."""
        with self._refusals_told("route"):
            newest, back = self._registry.routes.before(name)
            expected = newest.generation if expected is None else expected  # as of `rollback`
            return self._change_route(name, back.terms, "rollback", force=True, expected=expected, timeout_s=None)

    def remove_route(self, name: str, *, expected: int | None = None) -> Switched:
        """Raises `RouteNotFound`, `StaleGeneration`."""
        with self._refusals_told("route"):
            return self._advance(
                [],
                lambda: self._registry.activations.change_route(name, None, reason="removed", expected=expected),
                reason="route",
                of=name,
            )

    def start(self, others_have: Callable[[int], bool] = lambda _: False) -> None:
        """Take up the generation the service had; the base, as a new generation, in place of an encoder that is gone.

        Where `others_have` it, it is not gone: raises `EncoderBroken`, and the others serve on. Nor where its files do
        not answer: raises `Unavailable`.
        """
        reason: Reason | None = None
        if self._registry.activations.serving() is None:
            self._registry.activations.append(self._bringer.base_id, reason="start")
            reason = "start"
        while True:
            serving = self._serving()
            brought = self._bringer.bring(serving)
            if not brought.broken:
                break
            broken = brought.broken[0]
            if broken.record.key == BASE_KEY or isinstance(broken.error, Unavailable):
                raise broken.error
            place = broken.route or serving.active
            if others_have(place.generation):
                raise EncoderBroken(
                    f"{broken.record.key}, generation {place.generation}, cannot be loaded here, and other services "
                    f"on this registry serve it: {broken.error}"
                ) from broken.error
            with suppress(StaleGeneration):  # another service changed it meanwhile: that is read again
                self._fall_back(serving, broken)
                reason = "fallback"
        with self._lock:
            switch_us = self._take_up(serving, brought)
        if reason is not None:
            self._observer.switched(reason, switch_us)

    def _fall_back(self, serving: Serving, broken: Broken) -> None:
        """The base serves in its place, and in that of a canary the active encoder."""
        wanted, route, active = broken.record, broken.route, serving.active
        active_serves = route is None and wanted.id != active.encoder_id
        serves = self._registry.encoders.by_id(active.encoder_id if active_serves else self._bringer.base_id)
        self._pool.get(serves)  # nothing is written for a base that cannot be loaded either
        has = f"the route {route.name!r} has" if route else "serving"
        said = f"{wanted.key} could not be loaded, {has} {serves.key}: {broken.error}"
        if route is None:
            made = self._registry.activations.append(
                serves.id, reason="fallback", expected=active.generation
            ).generation
            self._fallbacks[None] = made, said
        else:
            terms = replace(route.terms, encoder_id=serves.id)
            changed = self._registry.activations.change_route(
                route.name, terms, reason="fallback", expected=route.generation, note=said
            )
            self._fallbacks[route.name] = changed.serving.generation, said
        log.error(said)
        self._bringer.mark_broken(wanted)

    def follow(self) -> None:
        """Take up the generation that another service made. Raises what loading raises; the old one stays then.

        A route whose encoder cannot be loaded stays alone as it was: it must not cut this service off from a rollback.
        """
        serving = self._serving()
        if serving.generation <= self._slot.current.reached:
            return
        brought = self._bringer.bring(serving)
        brought.check()  # that it is broken is not said for all: it may be so in this place alone
        with self._lock:
            before = self._slot.current
            switch_us = self._take_up(serving, brought)
            self._bringer.stay()
        if self._slot.current is not before:
            self._observer.switched(FOLLOWED, switch_us)
        self._pool.trim()
        for broken in brought.broken:
            assert broken.route is not None
            raise EncoderBroken(
                f"The route {broken.route.name!r} is not taken up, and stays as it was: {broken.error}"
            ) from broken.error

    def load_previous(self) -> None:
        """Bring the encoder before the active one back into memory, so that a rollback is a swap."""
        previous = self._slot.current.previous
        if previous is not None:
            try:
                self._pool.get(previous)
            except Exception as error:
                log.warning("The previous encoder %s cannot be loaded, a rollback would fail: %s", previous.key, error)

    def pinned_ids(self) -> set[int]:
        """Active, canary, previous, base and those of routes stay in memory."""
        return self._slot.pinned_ids() | {self._bringer.base_id}

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
        beside = [self._registry.encoders.by_id(canary.encoder_id)] if canary else []
        return self._advance(
            [record, *beside],
            lambda: self._registry.activations.advance(
                record.id, reason=reason, forced=forced, expected=expected, canary=canary, note=note, also=also
            ),
            reason=reason,
            timeout_s=timeout_s,
        )

    def _change_route(
        self,
        name: str,
        terms: RouteTerms,
        reason: RouteReason,
        *,
        force: bool,
        expected: int | None,
        timeout_s: float | None,
    ) -> Switched:
        if expected is not None:  # as `_require`
            newest = self._registry.routes.history(name, limit=1)
            check_expected(name, expected, newest[0].generation if newest else 0)
        record = self._registry.encoders.by_id(terms.encoder_id)
        self._check_state(record, force)
        base = [self._registry.encoders.by_id(self._bringer.base_id)] if terms.base_languages else []
        forced = force and reason == "set"
        return self._advance(
            [*base, record],
            lambda: self._registry.activations.change_route(
                name, terms, reason=reason, forced=forced, expected=expected
            ),
            reason="route",
            of=name,
            timeout_s=timeout_s,
        )

    def _advance(
        self,
        wanted: list[EncoderRecord],
        write: Callable[[], Advanced],
        *,
        reason: Reason,
        of: str | None = None,
        timeout_s: float | None = None,
    ) -> Switched:
        """Load and verify all that is `wanted`, `write` the generation, take it up. `of`: the route that it changes;
        None: the active encoder."""
        resident = {encoder.record.id for encoder in self._pool.resident()}
        brought = [self._bringer.load(record, timeout_s) for record in wanted]
        beside = self._beside(of)
        with self._lock:
            advanced = write()
            switch_us = self._take_up(advanced.serving, replace(beside, loaded=brought + beside.loaded))
            active = self._slot.current  # before the lock goes: the next switch is somebody else's
            self._bringer.stay()
            if not advanced.changed:
                # Activating what is active changes nothing: a new generation would only hide the way back.
                self._observer.not_switched(reason, "unchanged")
                made = advanced.serving.generation
                return Switched(active=active, generation=made, load_ms=0, warmup_ms=0, switch_us=0)
        self._observer.switched(reason, switch_us)
        self._pool.trim()  # what was previous is not pinned any more
        new = [each for each in brought if each.record.id not in resident]
        return Switched(
            active=active,
            generation=advanced.serving.generation,
            load_ms=sum(each.load_ms for each in new),
            warmup_ms=sum(each.warmup_ms for each in new),
            switch_us=switch_us,
        )

    def _beside(self, of: str | None) -> Brought:
        """What the next generation has beside the place that changes, where another service put it there and this one
        has not followed. Raises where it is what all searches need: no generation is written then."""
        serving = self._serving()
        if serving.generation <= self._slot.current.reached:
            return Brought(loaded=[], broken=[])
        beside = self._bringer.bring(serving, of, ROUTES_S)
        if of is not None:
            beside.check()
        return beside

    def _require(self, expected: int) -> None:
        """Early, so that nothing is loaded for a request that is stale; the history insists on it once more."""
        generation = self._registry.activations.newest(1)[0].generation
        if expected != generation:
            raise StaleGeneration(
                f"Generation {expected} was expected, but {generation} is active: "
                "read GET /active-encoder again and repeat with its ETag.",
                generation=generation,
            )

    def _serving(self) -> Serving:
        serving = self._registry.activations.serving()
        assert serving is not None  # the first start writes a generation, and none is ever taken back
        return serving

    def _take_up(self, serving: Serving, brought: Brought) -> float:
        """Swap, unless this process is further already: another service may have gone on while it was held up."""
        filled = self._slot.filled
        if serving.generation < self._taken or (filled and serving.generation <= filled.reached):
            return 0.0
        active = next_active(
            serving, brought.loaded, filled, base_id=self._bringer.base_id, find=self._registry.encoders.by_id
        )
        if active is None:
            return 0.0
        self._taken = serving.generation
        switch_us = self._slot.swap(active) if active != filled else 0.0
        places: dict[str | None, int] = {None: serving.active.generation}
        places |= {route.name: route.generation for route in serving.routes}
        self._fallbacks = {place: told for place, told in self._fallbacks.items() if places.get(place) == told[0]}
        return switch_us

    def _check_state(self, record: EncoderRecord, force: bool) -> None:
        if record.state is EncoderState.DELETED:
            raise Conflict(f"{record.key} was deleted and cannot become active.")
        if record.state is EncoderState.REJECTED and not force:
            raise Conflict(
                f"{record.key} was rejected by its gate ({record.metrics.get('verdict', 'see its metrics')}); "
                "send force=true to activate it all the same."
            )
