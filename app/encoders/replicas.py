"""A service among those on one registry: it says that it lives, and takes up every generation that one of them makes.

Contract: whoever was taken for dead (paused, cut off) looks at the history before it answers anything again.
"""

import asyncio
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.encoders.slot import Slot
from app.encoders.switching import Switcher
from app.errors import AdiabatError, Unavailable
from app.registry import Instance, Registry
from app.registry.bell import Bell
from app.registry.clocks import ClockWatch
from app.registry.instances import LEASE_S

log = logging.getLogger("adiabat.replicas")

BEAT_S = 1.0
GAP_S = 3 * BEAT_S  # between two ticks: less is a busy machine
RETRY_S = 5.0  # after a generation that could not be taken up
SETTLE_POLL_S = 0.05
CATCH_UP_S = 10.0  # how long a request waits for a replica that was paused
CATCH_UP_POLL_S = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Behind:
    """A live replica that still answers with an older generation."""

    name: str
    generation: int
    reason: str | None  # why it could not take up the newest; None: it has not yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    live: int
    behind: tuple[Behind, ...] = ()

    @property
    def switched(self) -> int:
        return self.live - len(self.behind)


class Among(Protocol):
    """What the service asks of its place among replicas."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def is_paused(self) -> bool:
        """Whether the others may have gone on without this one, so that it must not answer yet. Costs nothing."""

    async def caught_up(self) -> None:
        """Returns when it may answer. Raises `Unavailable`."""

    def standing(self) -> Standing:
        """Of the newest generation. Raises `Unavailable`."""

    def settled(self, generation: int, timeout_s: float) -> Standing:
        """As soon as every live replica has it or says why not; after `timeout_s` whatever it is then."""

    def generations_behind(self) -> int: ...

    def note(self) -> str | None:
        """A sentence where something is not as it should be here."""

    def registry_answers(self) -> bool:
        """Whether it did lately, so that a probe need not wait for one that hangs. Costs nothing."""

    def leads(self) -> bool:
        """Whether this one prepares jobs and activates what they made, for all."""

    def others_have(self, generation: int) -> bool:
        """Whether another live one answers with this generation."""


class Alone:
    """The embedded default: the folder's lock lets no other service in."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def is_paused(self) -> bool:
        return False

    async def caught_up(self) -> None: ...

    def standing(self) -> Standing:
        return Standing(live=1)

    def settled(self, generation: int, timeout_s: float) -> Standing:  # noqa: ARG002  # there is nobody to wait for
        return Standing(live=1)

    def generations_behind(self) -> int:
        return 0

    def note(self) -> str | None:
        return None

    def registry_answers(self) -> bool:
        return True

    def leads(self) -> bool:
        return True

    def others_have(self, generation: int) -> bool:  # noqa: ARG002  # there are none
        return False


class Replica:
    """One of several. `store` says where its passages are, which may be known better once it is open: all of them must
    have the same.
    """

    def __init__(self, registry: Registry, switcher: Switcher, slot: Slot, store: Callable[[], str]) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._registry = registry
        self._switcher = switcher
        self._slot = slot
        self._store = store
        self._where = ""
        self._stop = threading.Event()
        self._wanted = threading.Event()
        self._ticked_at = self._beaten_at = _clock()
        self._missed_at: float | None = None  # when a pause was noticed after which nobody has yet looked
        self._asked_at: float | None = None  # when a look began that has not ended
        self._newest = 0
        self._away: str | None = None  # why the registry did not answer the last look
        self._failed: tuple[int, str] | None = None
        self._clock_watch = ClockWatch()
        self._ticking = threading.Thread(target=self._tick_on, name="replica-tick", daemon=True)
        self._beating = threading.Thread(target=self._beat_on, name="replica-beat", daemon=True)
        self._following = threading.Thread(target=self._follow_on, name="replica-follow", daemon=True)

    def join(self) -> None:
        """Before anything else of the registry is read. Raises `Conflict` beside another cluster's services."""
        self._where = self._store()
        self._registry.instances.join(self._instance(0))

    def others_have(self, generation: int) -> bool:
        return any(each.id != self.id and each.generation >= generation for each in self._registry.instances.live())

    def start(self) -> None:
        self._where = self._store()
        self._ticked_at = self._beaten_at = _clock()
        self._newest = self._slot.current.reached
        for thread in (self._ticking, self._beating, self._following):
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wanted.set()
        for thread in (self._ticking, self._beating, self._following):
            thread.join()
        try:
            self._registry.instances.leave(self.id)
        except AdiabatError as error:  # its lease runs out
            log.warning("This replica could not take its leave: %s", error.detail)

    def is_paused(self) -> bool:
        return self._missed_at is not None or self._misses(_clock())

    async def caught_up(self) -> None:
        until = _clock() + CATCH_UP_S
        while self.is_paused():
            if _clock() > until:
                raise Unavailable("This replica was paused and has not yet caught up with the others; ask another one.")
            await asyncio.sleep(CATCH_UP_POLL_S)

    def standing(self) -> Standing:
        return self._standing(self._registry.activations.generation())

    def settled(self, generation: int, timeout_s: float) -> Standing:
        until = _clock() + timeout_s
        self._acknowledge()  # so that the others see at once what is known here
        while True:
            standing = self._standing(generation)
            if all(each.reason is not None for each in standing.behind) or _clock() >= until:
                return standing
            if self._stop.wait(SETTLE_POLL_S):
                return standing

    def generations_behind(self) -> int:
        return max(self._newest - self._slot.current.reached, 0)

    def note(self) -> str | None:
        asked_at = self._asked_at
        if asked_at is not None and _clock() - asked_at > LEASE_S:
            return (
                f"The registry has not answered for {_clock() - asked_at:.0f} s, so this replica may miss a switch; "
                "searches go on."
            )
        if self._away is not None:
            return f"The registry does not answer, so this replica may miss a switch: {self._away}"
        failed, behind = self._failed, self.generations_behind()
        if behind and failed is not None:
            serves = self._slot.current
            return (
                f"Generation {failed[0]} is active, and this replica still serves {serves.encoder.record.key}, "
                f"generation {serves.reached}: {failed[1]}"
            )
        return None

    def registry_answers(self) -> bool:
        asked_at = self._asked_at
        return self._away is None and (asked_at is None or _clock() - asked_at < 2 * BEAT_S)

    def leads(self) -> bool:
        """The one that has lived longest."""
        live = self._registry.instances.live()
        return bool(live) and live[0].id == self.id

    def _standing(self, generation: int) -> Standing:
        live = self._registry.instances.live()
        behind = [each for each in live if each.generation < generation and each.id != self.id]
        mine = self._slot.current.reached  # known here before it is told
        told = [_behind(each, generation) for each in behind]
        if mine < generation:
            told.append(_behind(self._instance(mine), generation))
        return Standing(live=max(len(live), 1), behind=tuple(told))

    def _instance(self, generation: int) -> Instance:
        failed = self._failed
        return Instance(
            id=self.id,
            name=self.name,
            store=self._where,
            generation=generation,
            failed_generation=failed[0] if failed else None,
            reason=failed[1] if failed else None,
        )

    def _tick_on(self) -> None:
        while not self._stop.wait(BEAT_S):
            self._tick()

    def _tick(self) -> None:
        now = _clock()
        if self._misses(now):
            self._missed_at = now
        self._ticked_at = now

    def _misses(self, now: float) -> bool:
        """Whether this process stood still, and so that the others may have taken it for dead.

        They count from its last sign of life, which may be older than its last tick. A registry that is away or hangs
        is no pause: then the ticks go on, and nobody can switch.
        """
        return now - self._ticked_at > GAP_S and now - self._beaten_at > LEASE_S

    def _beat_on(self) -> None:
        bell = Bell(self._registry.database, self._stop)
        while not self._stop.is_set():
            began = self._asked_at = _clock()
            try:
                self._look(paused=self.is_paused())
                self._away = None
            except AdiabatError as error:  # nobody can switch either: searches go on with what they have
                if self._away is None:
                    log.warning("The registry does not answer: %s", error.detail)
                self._away = error.detail
            except Exception:  # a bug must not end the only thread that says that this replica lives
                log.exception("The registry could not be looked at")
            self._asked_at = None
            if self._missed_at is not None and began >= self._missed_at:
                self._missed_at = None
            bell.wait(BEAT_S)
        bell.close()

    def _look(self, *, paused: bool) -> None:
        """One that was paused takes up what it missed first, and only then counts as alive again."""
        if paused:
            log.warning("This replica was paused for more than %g s; it catches up before it answers", LEASE_S)
            while self._is_new(self._find()):
                self._follow()
        sent_at = _clock()
        self._clock_watch.look(self._registry.instances.beat(self._instance(self._slot.current.reached)))
        self._beaten_at = sent_at
        if self._is_new(self._find()):
            self._wanted.set()

    def _find(self) -> int:
        self._newest = self._registry.activations.generation()
        return self._newest

    def _is_new(self, generation: int) -> bool:
        failed = self._failed
        return generation > self._slot.current.reached and (failed is None or generation > failed[0])

    def _follow_on(self) -> None:
        while not self._stop.is_set():
            self._wanted.wait(RETRY_S if self._failed else None)
            self._wanted.clear()
            if not self._stop.is_set() and self.generations_behind():
                self._follow()
                self._acknowledge()

    def _follow(self) -> None:
        wanted = self._newest
        try:
            self._switcher.follow()
        except Exception as error:  # whatever it is, the old generation goes on answering
            if self._failed is None or self._failed[0] != wanted:
                bug = None if isinstance(error, AdiabatError) else error
                log.error("Generation %d cannot be taken up here: %s", wanted, error, exc_info=bug)
            self._failed = wanted, str(error)
        else:
            self._failed = None

    def _acknowledge(self) -> None:
        try:
            self._registry.instances.beat(self._instance(self._slot.current.reached))
        except AdiabatError as error:  # the next beat tells it
            log.warning("A switch could not be acknowledged: %s", error.detail)


def _behind(instance: Instance, generation: int) -> Behind:
    failed = instance.failed_generation is not None and instance.failed_generation >= generation
    return Behind(name=instance.name, generation=instance.generation, reason=instance.reason if failed else None)


def _clock() -> float:
    """Goes on while the process is stopped, and where the system can tell, while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
