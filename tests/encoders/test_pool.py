"""The pool over real encoders: who leaves, who stays, who comes back."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.encoders.files import EncoderFiles
from app.encoders.loaded import LoadedEncoder
from app.encoders.pool import EncoderPool, weights_bytes
from app.encoders.query_cache import QueryCache
from app.errors import EncoderBroken, Unavailable
from app.registry import EncoderRecord
from tests.encoders.conftest import Caches
from tests.encoders.loaded import loaded, record

LIMIT_S = 20

Build = Callable[..., EncoderPool]


class Loader:
    """Loads the tiny encoder for every record, and counts; while `go` is clear a load waits."""

    def __init__(self, tiny: EncoderFiles, caches: Caches) -> None:
        self._tiny = tiny
        self._caches = caches
        self.loads: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.broken: set[int] = set()
        self.evictions = 0

    def __call__(self, record: EncoderRecord) -> LoadedEncoder:
        self.loads.append(record.id)
        assert self.go.wait(LIMIT_S)
        if record.id in self.broken:
            raise EncoderBroken(f"{record.key} is damaged.")
        return loaded(self._caches.engine(self._tiny), self._tiny, QueryCache(0), number=record.id)

    def evicted(self) -> None:
        self.evictions += 1


@pytest.fixture
def loader(tiny: EncoderFiles, caches: Caches) -> Loader:
    return Loader(tiny, caches)


@pytest.fixture
def one(loader: Loader) -> Iterator[LoadedEncoder]:
    """For its size."""
    encoder = loader(record(0))
    loader.loads.clear()
    yield encoder
    encoder.dispatcher.close()


@pytest.fixture
def build(loader: Loader, one: LoadedEncoder) -> Iterator[Build]:
    """A pool with room for `encoders` of them; `pinned` may be changed by the test."""
    made: list[EncoderPool] = []

    def _build(encoders: int, pinned: set[int]) -> EncoderPool:
        room = weights_bytes([one]) + (encoders - 1) * one.weights_bytes
        made.append(EncoderPool(loader, lambda: pinned, max_bytes=room, observer=loader))
        return made[-1]

    yield _build
    loader.go.set()
    for pool in made:
        pool.close()


def held(pool: EncoderPool) -> list[int]:
    """Ids, the least recently used first."""
    return [encoder.record.id for encoder in pool.resident()]


def test_the_least_recently_used_leave_for_what_is_loaded(build: Build, loader: Loader) -> None:
    pool = build(3, {1})
    for number in (1, 2, 3):
        pool.get(record(number))
    assert pool.peek(2) is not None  # used again
    pool.get(record(4))
    _settled(pool, [1, 2, 4])
    pool.get(record(3))
    _settled(pool, [1, 4, 3])
    assert loader.loads == [1, 2, 3, 4, 3]
    assert loader.evictions == 2


def test_shared_tables_count_once(one: LoadedEncoder, loader: Loader) -> None:
    other = loader(record(2))
    assert sum(one.shared_bytes.values()) > 0
    assert weights_bytes([one, other]) == 2 * one.weights_bytes + sum(one.shared_bytes.values())
    other.dispatcher.close()


def test_pinned_encoders_stay_whatever_they_take_and_it_is_said_once(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    pinned = {1, 2, 3}
    pool = build(2, pinned)
    with caplog.at_level(logging.WARNING):
        for number in (1, 2, 3, 4, 5):
            pool.get(record(number))
        _settled(pool, [1, 2, 3, 5])
    assert "ADIABAT_MAX_RESIDENT_BYTES" in str(pool.overfull())
    assert [item.message for item in caplog.records] == [pool.overfull()]
    pinned -= {1, 2}
    pool.trim()
    assert (held(pool), pool.overfull()) == ([3, 5], None)


def test_what_left_while_somebody_has_it_comes_back_without_a_load(build: Build, loader: Loader) -> None:
    pool = build(2, {1})
    pool.get(record(1))
    kept = pool.get(record(2))
    pool.get(record(3))
    _settled(pool, [1, 3])
    assert pool.peek(2) is None
    assert pool.get(record(2)) is kept
    assert loader.loads == [1, 2, 3]
    _settled(pool, [1, 2])


def test_what_left_is_gone_once_nobody_has_it(build: Build, loader: Loader) -> None:
    pool = build(2, {1})
    for number in (1, 2, 3):
        pool.get(record(number))
    _settled(pool, [1, 3])
    gc.collect()
    pool.get(record(2))
    assert loader.loads == [1, 2, 3, 2]


def test_a_deleted_encoder_does_not_come_back_from_who_still_has_it(build: Build) -> None:
    pool = build(2, {1})
    pool.get(record(1))
    kept = pool.get(record(2))
    pool.get(record(3))
    _settled(pool, [1, 3])
    pool.drop(2)
    assert pool.get(record(2)) is not kept
    kept.dispatcher.close()


def test_many_who_ask_at_once_wait_for_one_load(build: Build, loader: Loader) -> None:
    pool = build(2, {1})
    loader.go.clear()
    with pytest.raises(Unavailable, match="goes on loading"):
        pool.get(record(1), timeout_s=0)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(pool.get, record(1)) for _ in range(8)]
        assert pool.peek(1) is None
        loader.go.set()
        assert len({id(each.result(LIMIT_S)) for each in waiting}) == 1
    assert loader.loads == [1]


def test_a_load_that_fails_is_tried_again(build: Build, loader: Loader) -> None:
    pool = build(2, set())
    loader.broken = {1}
    with pytest.raises(EncoderBroken):
        pool.get(record(1))
    loader.broken = set()
    assert pool.get(record(1)).record.id == 1


def test_threads_that_ask_for_everything_leave_the_pool_within_its_budget(build: Build, one: LoadedEncoder) -> None:
    pool = build(3, {1})

    def ask(seed: int) -> None:
        for step in range(10):
            number = (seed * 7 + step * 3) % 6 + 1
            assert pool.get(record(number)).record.id == number

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(4)))
    pool.get(record(1))
    pool.trim()
    assert weights_bytes(pool.resident()) <= weights_bytes([one]) + 2 * one.weights_bytes


def _settled(pool: EncoderPool, ids: list[int]) -> None:
    """Encoders leave after whoever waited for the new one has it."""
    for thread in threading.enumerate():
        if thread.name.startswith("load-"):
            thread.join(LIMIT_S)
    assert held(pool) == ids
