"""The encoders in memory. Loading happens once however many ask; what was not used for longest leaves again.

`max_bytes` bounds the weights of all residents, shared ones counted once. It is looked at once an encoder is loaded, so
one more is in memory for a moment.
"""

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Protocol

from app.encoders.loaded import LoadedEncoder
from app.errors import Unavailable
from app.registry import EncoderRecord

log = logging.getLogger("adiabat.encoders")

MB = 1e6


class PoolObserver(Protocol):
    """Hears of every encoder that leaves to make room."""

    def evicted(self) -> None: ...


class EncoderPool:
    """`load` builds a `LoadedEncoder`; `pinned` says which ids stay, whatever they take."""

    def __init__(
        self,
        load: Callable[[EncoderRecord], LoadedEncoder],
        pinned: Callable[[], set[int]],
        *,
        max_bytes: int,
        observer: PoolObserver,
    ) -> None:
        self._load = load
        self._pinned = pinned
        self._max_bytes = max_bytes
        self._observer = observer
        self._lock = threading.Lock()
        self._encoders: OrderedDict[int, Future[LoadedEncoder]] = OrderedDict()
        # Those that left while a request or the slot still had them: one that comes back is not loaded twice.
        self._left: weakref.WeakValueDictionary[int, LoadedEncoder] = weakref.WeakValueDictionary()
        self._overfull_told = False

    def get(self, record: EncoderRecord, timeout_s: float | None = None) -> LoadedEncoder:
        """The loaded encoder; loads it if needed. Raises `EncoderBroken`, and `Unavailable` after `timeout_s`."""
        with self._lock:
            future = self._encoders.get(record.id)
            if future is None:
                future = self._encoders[record.id] = Future()
                threading.Thread(target=self._fill, args=(record, future), name=f"load-{record.key}").start()
            self._encoders.move_to_end(record.id)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            raise Unavailable(
                f"{record.key} was not loaded within {timeout_s:g} s; nothing changed. It goes on loading: "
                "repeat the call, or give it a larger timeout_s."
            ) from error

    def peek(self, encoder_id: int) -> LoadedEncoder | None:
        """The encoder if it is in memory; never waits."""
        with self._lock:
            future = self._encoders.get(encoder_id)
            if future is None or not _is_loaded(future):
                return None
            self._encoders.move_to_end(encoder_id)
            return future.result()

    def resident(self) -> list[LoadedEncoder]:
        with self._lock:
            return self._resident()

    def drop(self, encoder_id: int) -> None:
        """Forget an encoder. A request that took it earlier still ends on it; its memory goes with the last one."""
        with self._lock:
            self._encoders.pop(encoder_id, None)
            self._left.pop(encoder_id, None)

    def trim(self, keep: int | None = None) -> None:
        """Let encoders go, the least recently used first, until the rest fits; pinned ones and `keep` stay."""
        with self._lock:
            self._evict({keep, *self._pinned()})
        self._tell_once(self.overfull())

    def overfull(self) -> str | None:
        """A sentence where those that must stay are over the budget by themselves."""
        pinned = self._pinned()
        taken = weights_bytes(encoder for encoder in self.resident() if encoder.record.id in pinned)
        if taken <= self._max_bytes:
            return None
        return (
            f"Active, previous and base encoder, a canary's and those of routes take {taken / MB:.0f} MB, over the "
            f"{self._max_bytes / MB:.0f} MB of ADIABAT_MAX_RESIDENT_BYTES, and stay; every other one leaves as soon as "
            "the next is loaded. Raise it."
        )

    def close(self) -> None:
        for encoder in self.resident():
            encoder.dispatcher.close(drain=True)

    def _resident(self) -> list[LoadedEncoder]:
        return [future.result() for future in self._encoders.values() if _is_loaded(future)]

    def _fill(self, record: EncoderRecord, future: Future[LoadedEncoder]) -> None:
        try:
            future.set_result(self._left.get(record.id) or self._load(record))
        except BaseException as error:
            with self._lock:  # the next request tries again
                self._encoders.pop(record.id, None)
            future.set_exception(error)
            return
        self.trim(keep=record.id)

    def _evict(self, staying: set[int | None]) -> None:
        idle = [key for key, future in self._encoders.items() if key not in staying and _is_loaded(future)]
        for key in idle:
            if weights_bytes(self._resident()) <= self._max_bytes:
                return
            self._left[key] = self._encoders.pop(key).result()
            self._observer.evicted()

    def _tell_once(self, overfull: str | None) -> None:
        if overfull is not None and not self._overfull_told:
            log.warning(overfull)
        self._overfull_told = overfull is not None


def weights_bytes(encoders: Iterable[LoadedEncoder]) -> int:
    """Memory for the weights of these encoders together."""
    shared: dict[str, int] = {}
    own = 0
    for encoder in encoders:
        own += encoder.weights_bytes
        shared |= encoder.shared_bytes
    return own + sum(shared.values())


def _is_loaded(future: Future[LoadedEncoder]) -> bool:
    return future.done() and future.exception() is None
