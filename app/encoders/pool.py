"""The encoders in memory. Loading happens once however many ask; what nobody needs leaves again."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from app.encoders.loaded import LoadedEncoder
from app.errors import Unavailable
from app.registry import EncoderRecord

MAX_IDLE = 4  # encoders kept beside active, previous and base for requests that name one


class EncoderPool:
    """`load` builds a `LoadedEncoder`; `pinned` says which ids must stay."""

    def __init__(self, load: Callable[[EncoderRecord], LoadedEncoder], pinned: Callable[[], set[int]]) -> None:
        self._load = load
        self._pinned = pinned
        self._lock = threading.Lock()
        self._encoders: OrderedDict[int, Future[LoadedEncoder]] = OrderedDict()

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
            if future is None or not future.done() or future.exception() is not None:
                return None
            self._encoders.move_to_end(encoder_id)
            return future.result()

    def resident(self) -> list[LoadedEncoder]:
        with self._lock:
            return [future.result() for future in self._encoders.values() if future.done() and not future.exception()]

    def drop(self, encoder_id: int) -> None:
        """Forget an encoder. A request that took it earlier still ends on it; its memory goes with the last one."""
        with self._lock:
            self._encoders.pop(encoder_id, None)

    def close(self) -> None:
        for encoder in self.resident():
            encoder.dispatcher.close(drain=True)

    def _fill(self, record: EncoderRecord, future: Future[LoadedEncoder]) -> None:
        try:
            future.set_result(self._load(record))
        except BaseException as error:
            with self._lock:  # the next request tries again
                self._encoders.pop(record.id, None)
            future.set_exception(error)
            return
        self._evict(keep=record.id)

    def _evict(self, keep: int) -> None:
        pinned = self._pinned() | {keep}
        with self._lock:
            idle = [key for key, future in self._encoders.items() if key not in pinned and future.done()]
            for key in idle[: max(0, len(idle) - MAX_IDLE)]:
                del self._encoders[key]
