"""The cache by itself, and before a real engine whose runs are counted."""

import asyncio
import gc
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoders.files import EncoderFiles
from app.encoders.loaded import LoadedEncoder
from app.encoders.onnx_engine import OnnxEngine
from app.encoders.query_cache import OVERHEAD_BYTES, QueryCache, cache_key
from app.encoders.spec import EncoderSpec, read_spec
from app.errors import BadInput
from tests.encoders.conftest import Caches
from tests.encoders.loaded import loaded

LIMIT_S = 20
ROW = bytes(4 * 384)
ENTRY_BYTES = 65 + 33 + len(ROW) + OVERHEAD_BYTES
TEXTS = ["the water pump", "oil and fire", "wie funktioniert der filter", "x"]

Load = Callable[..., LoadedEncoder]


class CountedEngine:
    """`inner`, with a record of its runs; while `go` is clear a run waits."""

    def __init__(self, inner: OnnxEngine) -> None:
        self.inner = inner
        self.runs: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        self.runs.append(list(texts))
        self.started.release()
        assert self.go.wait(LIMIT_S)
        return self.inner.embed(texts, prompt)

    def close(self) -> None:
        """Several encoders of one test run on it."""


@pytest.fixture
def engine(tiny: EncoderFiles, caches: Caches) -> CountedEngine:
    return CountedEngine(caches.engine(tiny))


@pytest.fixture
def cache() -> QueryCache:
    return QueryCache(2**20)


@pytest.fixture
def load(engine: CountedEngine, tiny: EncoderFiles, cache: QueryCache) -> Iterator[Load]:
    """The encoder before that engine, and others of the same weights with another spec."""
    made: list[LoadedEncoder] = []

    def _load(spec: EncoderSpec | None = None, cache: QueryCache = cache) -> LoadedEncoder:
        made.append(loaded(engine, tiny, cache, spec=spec))  # type: ignore[arg-type]
        return made[-1]

    yield _load
    engine.go.set()
    for encoder in made:
        encoder.dispatcher.close()


def embed(encoder: LoadedEncoder, *texts: str) -> NDArray[np.float32]:
    return asyncio.run(encoder.embed_queries(list(texts)))


def keys(*names: str) -> list[bytes]:
    return [cache_key("sha256:a", name) for name in names]


def test_a_query_that_comes_again_is_not_embedded_again(load: Load, engine: CountedEngine, cache: QueryCache) -> None:
    encoder = load()
    first = embed(encoder, *TEXTS)
    again = embed(encoder, TEXTS[2], TEXTS[0])
    np.testing.assert_array_equal(again, first[[2, 0]])
    assert engine.runs == [TEXTS]
    assert (cache.hits, cache.misses, len(cache)) == (2, 4, 4)


def test_only_what_is_missing_is_embedded_and_the_order_is_kept(load: Load, engine: CountedEngine) -> None:
    encoder = load()
    embed(encoder, TEXTS[1])
    found = embed(encoder, TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2])
    assert engine.runs == [[TEXTS[1]], [TEXTS[0], TEXTS[2]]]
    expected = engine.inner.embed([TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2]])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_a_budget_every_query_is_embedded(load: Load, engine: CountedEngine) -> None:
    off = QueryCache(0)
    encoder = load(cache=off)
    for _ in range(2):
        embed(encoder, TEXTS[0])
    assert engine.runs == [[TEXTS[0]]] * 2
    assert (len(off), off.nbytes, off.hits, off.misses) == (0, 0, 0, 0)


@pytest.mark.parametrize("other", [{"query_prompt": "query: "}, {"max_length": 5}, {"pooling": "cls"}])
def test_encoders_of_the_same_weights_share_no_entry_where_their_vectors_differ(
    load: Load, tiny: EncoderFiles, engine: CountedEngine, other: dict[str, object]
) -> None:
    spec = replace(read_spec(tiny), **other)  # type: ignore[arg-type]
    ours, theirs = load(), load(spec)
    for encoder in (ours, theirs):
        embed(encoder, TEXTS[0])
    assert engine.runs == [[TEXTS[0]], [spec.query_prompt + TEXTS[0]]]


def test_one_encoder_loaded_twice_shares_its_entries(load: Load, engine: CountedEngine) -> None:
    embed(load(), TEXTS[0])
    embed(load(), TEXTS[0])
    assert engine.runs == [[TEXTS[0]]]


def test_keys_tell_every_pair_of_digest_and_text_apart() -> None:
    pairs = [
        (digest, text) for digest in ("sha256:a", "sha256:ab", "") for text in ("", "b", "a\n", "\n", "é", "\ud800")
    ]
    assert len({cache_key(*pair) for pair in pairs}) == len(pairs)


def test_nobody_can_change_what_is_kept(load: Load) -> None:
    encoder = load()
    kept = embed(encoder, *TEXTS).copy()
    for _ in range(2):
        answer = embed(encoder, TEXTS[0])
        with pytest.raises(ValueError, match="read-only"):
            answer[0, 0] = 7
    np.testing.assert_array_equal(embed(encoder, TEXTS[0])[0], kept[0])


def test_a_text_that_cannot_be_embedded_is_not_kept(load: Load, cache: QueryCache) -> None:
    encoder = load()
    for _ in range(2):
        with pytest.raises(BadInput):
            embed(encoder, "half \ud83d")
    assert (len(cache), cache.misses) == (0, 2)


def test_a_caller_that_leaves_keeps_nothing_and_harms_nobody(
    load: Load, engine: CountedEngine, cache: QueryCache
) -> None:
    encoder = load()
    engine.go.clear()

    async def run() -> NDArray[np.float32]:
        leaving = asyncio.create_task(encoder.embed_queries([TEXTS[0]]))
        await asyncio.to_thread(engine.started.acquire, timeout=LIMIT_S)  # it is being embedded now
        staying = asyncio.create_task(encoder.embed_queries([TEXTS[0]]))
        await asyncio.sleep(0)  # both wait in their places
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert len(cache) == 0
        engine.go.set()
        return await staying

    np.testing.assert_allclose(asyncio.run(run()), engine.inner.embed([TEXTS[0]]), atol=1e-6)
    np.testing.assert_allclose(embed(encoder, TEXTS[0]), engine.inner.embed([TEXTS[0]]), atol=1e-6)


def test_the_least_recently_asked_leave_first() -> None:
    cache = QueryCache(3 * ENTRY_BYTES)
    a, b, c, d = keys("a", "b", "c", "d")
    cache.keep(dict.fromkeys((a, b, c), ROW))
    cache.find([a])
    cache.keep({d: ROW})
    assert set(cache.find([a, b, c, d])) == {a, c, d}
    assert cache.nbytes == 3 * ENTRY_BYTES <= cache.max_bytes


def test_an_entry_over_the_whole_budget_is_not_kept_and_drives_nothing_out() -> None:
    cache = QueryCache(2 * ENTRY_BYTES)
    a, b = keys("a", "b")
    cache.keep({a: ROW})
    cache.keep({b: ROW * 3})
    assert (set(cache.find([a, b])), cache.nbytes) == ({a}, ENTRY_BYTES)


def test_an_entry_that_is_made_twice_counts_once() -> None:
    cache = QueryCache(10 * ENTRY_BYTES)
    for _ in range(3):
        cache.keep({keys("a")[0]: bytes(ROW)})
    assert (len(cache), cache.nbytes) == (1, ENTRY_BYTES)


def test_the_bytes_it_counts_are_the_bytes_it_takes() -> None:
    """As Python's allocators see it; the allocator's own rounding is why more is counted than is seen."""
    cache = QueryCache(2**23)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(2):  # full after the first: what leaves must be given back
            for _ in range(6_000):
                cache.keep({os.urandom(32): os.urandom(len(ROW))})
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.95 * 2**23 < cache.nbytes <= 2**23
    assert 0.9 * cache.nbytes < taken <= 1.01 * cache.nbytes


def test_many_threads_leave_the_sums_right() -> None:
    cache = QueryCache(50 * ENTRY_BYTES)

    def work(seed: int) -> int:
        random = np.random.default_rng(seed)
        wrong = 0
        for number in random.integers(0, 100, 2_000).tolist():
            key, row = cache_key("sha256:a", str(number)), number.to_bytes(2, "big") * (len(ROW) // 2)
            wrong += cache.find([key]).get(key, row) != row
            cache.keep({key: row})
        return wrong

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 0
    assert cache.nbytes == len(cache) * ENTRY_BYTES <= cache.max_bytes
    assert cache.hits + cache.misses == 16_000
