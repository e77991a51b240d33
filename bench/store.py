"""The Edge passage store: how fast it takes passages, how long it stops other threads, what its index is worth.

    python bench/store.py --passages 16000 [--dimension 384] [--folder DIR] [--json FILE]

Vectors are random around random centres, so that neighbours exist. A ticking thread measures the longest time in
which no other thread of the process ran; searches run beside ingest and rebuild as they would in the service.
"""

import argparse
import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from app.passages import IndexSpace, Passage, Point
from app.passages.edge import EdgeStore

BATCH = 256
QUERIES = 300


class Ticker:
    """`longest_ms`: the longest gap between two wake-ups of a thread that sleeps half a millisecond."""

    def __enter__(self) -> "Ticker":
        self.longest_ms = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.perf_counter()
        while not self._stop.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            self.longest_ms = max(self.longest_ms, (now - last) * 1000)
            last = now


@contextmanager
def searching(store: EdgeStore, queries: np.ndarray, took_ms: list[float]) -> Iterator[None]:
    """Searches beside the work, 50 times a second."""
    stop = threading.Event()

    def run() -> None:
        turn = 0
        while not stop.wait(0.02):
            took_ms.append(timed_ms(lambda turn=turn: store.search(queries[turn % len(queries)], limit=10)))
            turn += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def timed_ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def drawn(count: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of passages (count, dimension) and of queries (QUERIES, dimension)."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(count // 50, 1), dimension)).astype(np.float32)

    def around(number: int) -> np.ndarray:
        noise = random.standard_normal((number, dimension)).astype(np.float32)
        vectors = centres[random.integers(len(centres), size=number)] + noise
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return around(count), around(QUERIES)


def points_of(vectors: np.ndarray, start: int) -> list[Point]:
    batch = vectors[start : start + BATCH]
    return [
        Point(
            passage=Passage(id=f"p{start + i}", text="x" * 1_000, title=f"title {start + i}", metadata={"lang": "en"}),
            content_hash=str(start + i),
            vector=vector,
        )
        for i, vector in enumerate(batch)
    ]


def p50(store: EdgeStore, queries: np.ndarray, **options: bool) -> float:
    return float(np.median([timed_ms(lambda q=q: store.search(q, limit=10, **options)) for q in queries]))


def recall(store: EdgeStore, queries: np.ndarray) -> float:
    exact = store.search_batch(list(queries), limit=10, exact=True)
    quick = store.search_batch(list(queries), limit=10)
    found = [len({a.id for a in x} & {b.id for b in y}) for x, y in zip(exact, quick, strict=True)]
    return sum(found) / (10 * len(queries))


def measure(folder: Path, count: int, dimension: int) -> dict[str, float]:
    vectors, queries = drawn(count, dimension)
    space = IndexSpace(passage_encoder_digest="bench", dimension=dimension)
    result: dict[str, float] = {"passages": count, "dimension": dimension}

    # Ingest alone, no rebuild beside it.
    store = EdgeStore(folder, space, indexed_fields=["lang"], index_after=10**9)
    during: list[float] = []
    with Ticker() as ticker, searching(store, queries, during):
        took_ms = timed_ms(lambda: [store.upsert(points_of(vectors, at)) for at in range(0, count, BATCH)])
    result["ingest_per_s"] = count / took_ms * 1000
    result["ingest_longest_stall_ms"] = ticker.longest_ms
    result["ingest_slowest_search_ms"] = max(during, default=0.0)
    result["durable_write_ms"] = timed_ms(lambda: store.upsert(points_of(vectors, 0)[:1], durable=True))
    result["unindexed_p50_ms"] = p50(store, queries)
    store.close()

    # Opened again with a low limit, it builds the index at once, while a quarter is written anew.
    result["open_ms"] = timed_ms(lambda: EdgeStore(folder, space, index_after=10**9).close())
    store = EdgeStore(folder, space, index_after=1)
    during = []
    with Ticker() as ticker, searching(store, queries, during):
        start = time.perf_counter()
        for at in range(0, count // 4, BATCH):
            store.upsert(points_of(vectors, at))
        store.wait_indexed()
        result["rebuild_s"] = time.perf_counter() - start
    result["rebuild_longest_stall_ms"] = ticker.longest_ms
    result["rebuild_slowest_search_ms"] = max(during, default=0.0)
    result["indexed"] = store.info().indexed
    result["indexed_p50_ms"] = p50(store, queries)
    result["exact_p50_ms"] = p50(store, queries, exact=True)
    result["recall_at_10"] = recall(store, queries)
    with Ticker() as ticker:
        result["export_s"] = timed_ms(lambda: store.export(folder.with_name("export"))) / 1000
    result["export_longest_stall_ms"] = ticker.longest_ms
    store.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=16_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--folder", type=Path, help="where the store is made (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    # As a service should after its imports: one full collection over them stops every thread for 75 ms.
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        result = measure(Path(folder) / "passages", given.passages, given.dimension)
    for name, value in result.items():
        print(f"{name:<28}{value:>12,.3f}" if isinstance(value, float) else f"{name:<28}{value:>12,}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
