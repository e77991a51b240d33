"""One live Edge shard and the slot that holds it: readers take a lease, writers a lock, a rebuild swaps it.

Every call into Edge holds the GIL until it returns; `Pace` cuts writes into calls of a few milliseconds.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import qdrant_edge as edge

from app.errors import Unavailable
from app.passages.disk import copy_tree, require_space, sync_file
from app.passages.edge_folder import mend
from app.passages.index_space import IndexSpace
from app.passages.lexical import LEXICAL
from app.passages.payload import DENSE, EF_CONSTRUCT, METADATA

Item = TypeVar("Item")

OF_FILES = ("Service runtime error", "Inconsistent storage", "Storage file not found")  # how Edge begins then
TAIL = 256  # points that a swap may carry over while writers wait: about 40 ms


def create_shard(path: Path, space: IndexSpace) -> None:
    edge.EdgeShard.create(str(path), _config(space, WORDS)).close()


def load_shard(path: Path, space: IndexSpace | None = None) -> "edge.EdgeShard":
    """With its `space` the shard takes today's config, and the next `optimize` makes anew what was made by another.

    Raises Unavailable if Edge cannot read it.
    """
    with in_our_words(f"The passages in {path} cannot be opened", mend(path.parent)):
        return edge.EdgeShard.load(str(path), None if space is None else _config(space, None))


@contextmanager
def in_our_words(what: str, then: str = "") -> Iterator[None]:
    """What Edge says of its files. What it says of a wrong request is our mistake, and goes on as it is."""
    try:
        yield
    except BaseException as error:
        if not _is_of_files(error):
            raise
        raise Unavailable(f"{what}: {str(error).strip().rstrip('.')}. {then}".strip()) from error


def _is_of_files(error: BaseException) -> bool:
    """Edge raises nothing more precise than Exception, and where its Rust panics not even that."""
    if type(error).__name__ == "PanicException":
        return True
    return type(error) is Exception and str(error).startswith(OF_FILES)


def create_field_indexes(shard: "edge.EdgeShard", fields: Iterable[str]) -> None:
    there = shard.info().payload_schema
    for name in (f"{METADATA}.{key}" for key in fields):
        if name not in there:
            shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Keyword))


WORDS = {LEXICAL: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)}


def _config(space: IndexSpace, sparse: "dict[str, edge.EdgeSparseVectorParams] | None") -> "edge.EdgeConfig":
    """With `sparse` None a shard that is opened keeps the lexical side that it has, or that it has none."""
    # Qdrant's Cosine normalises every vector again on its way in; Dot gives back what was given, bit by bit.
    dot = space.distance == "dot" or space.normalized
    vectors = edge.EdgeVectorParams(space.dimension, edge.Distance.Dot if dot else edge.Distance.Cosine)
    return edge.EdgeConfig(
        vectors={DENSE: vectors},
        sparse_vectors=sparse,
        hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=EF_CONSTRUCT, full_scan_threshold=10_000),
        # 1 KB: whatever is there when a child optimizes gets its graph; `index_after` decides when one does.
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1),
    )


class Pace:
    """How many items one Edge call may take so that it stops the other threads for about `target_s`."""

    def __init__(self, size: int, target_s: float = 0.004, most: int = 512) -> None:
        self.size = size
        self._target_s = target_s
        self._most = most

    def slices(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        start = 0
        while start < len(items):
            taken = items[start : start + self.size]
            yield taken
            start += len(taken)

    @contextmanager
    def measured(self, items: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        fitting = items * self._target_s / max(time.perf_counter() - start, 1e-6)
        # By at most a factor of two at once: the clock also counts what other processes took.
        self.size = int(min(max(fitting, self.size / 2, 1), self.size * 2, self._most))


def breathe() -> None:
    """Between two calls into Edge: a thread that waits for the GIL gets it, and keeps it for a moment."""
    time.sleep(0.0005)


@dataclass(slots=True, eq=False)
class Handle:
    """An open shard, its folder and how many readers hold it."""

    shard: "edge.EdgeShard"
    folder: Path
    lexical: bool  # every passage has its lexical vector
    counted: int = 0  # vectors that Edge counted as indexed when the index was made
    readers: int = 0
    unflushed: int = 0  # points written since Edge's own flush; they are in its log only

    def unindexed(self) -> int:
        """How many points were written since the index was made, those that replace others too.

        Edge counts as indexed what lies in the graph, replaced or not, and every lexical vector that was ever written
        beside it: so that count grows by one with each point. Where there are none it says less (`points - indexed`).
        """
        told = self.shard.info()
        if self.lexical:
            return int(told.indexed_vectors_count) - self.counted
        return int(told.points_count - told.indexed_vectors_count)

    def indexed(self) -> int:
        """How many passages are in the HNSW graphs."""
        points = int(self.shard.info().points_count)
        return points - min(max(self.unindexed(), 0), points)


@dataclass(slots=True, eq=False)
class Writer:
    """What a writer has while it holds the write lock."""

    handle: Handle
    touched: set[UUID] | None

    def update(self, operation: "edge.UpdateOperation", ids: Sequence[UUID]) -> None:
        require_space(self.handle.folder)
        if self.touched is not None:
            # Before the write: if it fails half-way, carrying the point over once more does no harm.
            self.touched.update(ids)
        with in_our_words("The passage store could not write"):
            self.handle.shard.update(operation)
        self.handle.unflushed += len(ids)


@dataclass(slots=True, eq=False)
class ShardSlot:
    """The one place that holds the live shard. While a rebuild runs, it notes the ids that writes touch."""

    _current: Handle | None
    _leases: threading.Condition = field(default_factory=threading.Condition)
    _write_lock: threading.Lock = field(default_factory=threading.Lock)
    _touched: set[UUID] | None = None

    @contextmanager
    def reading(self) -> Iterator[Handle]:
        with self._leases:
            handle = self._live()
            handle.readers += 1
        try:
            with in_our_words(f"The passages in {handle.folder} cannot be read", mend(handle.folder.parent)):
                yield handle
        finally:
            with self._leases:
                handle.readers -= 1
                self._leases.notify_all()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        with self._write_lock:
            yield Writer(self._live(), self._touched)

    def copy(self, target: Path, *, track: bool, note: Callable[[], Any] = lambda: None) -> Any:
        """A copy as kill -9 would leave it; Edge repairs it from its log. Writers wait, readers do not.

        From here to `swap` or `forget`, `track` notes touched ids. Returns what `note` says at this instant.
        """
        with self._write_lock:
            copy_tree(self._live().folder, target)
            if track:
                self._touched = set()
            return note()

    def forget(self) -> None:
        with self._write_lock:
            self._touched = None

    def swap(self, fresh: Handle, publish: Callable[[], None]) -> Handle:
        """Makes `fresh`, built from a tracked copy, the live shard. Returns the old one, which nobody reads.

        `publish` runs when `fresh` has every write, on disk, and no writer can add another.
        """
        while touched := self._take_touched(more_than=TAIL):
            self._carry(fresh, touched)
            sync_log(fresh.folder)
        with self._write_lock:
            self._carry(fresh, list(self._touched or ()))
            sync_log(fresh.folder)
            publish()
            with self._leases:
                old, self._current = self._live(), fresh
            self._touched = None
        self._wait_unread(old)
        return old

    def close(self) -> None:
        with self._write_lock, self._leases:
            old, self._current = self._current, None
        if old is not None:
            self._wait_unread(old)
            old.shard.close()

    def _live(self) -> Handle:
        if self._current is None:
            raise Unavailable("The passage store is closed.")
        return self._current

    def _take_touched(self, more_than: int) -> list[UUID]:
        with self._write_lock:
            if self._touched is None or len(self._touched) <= more_than:
                return []
            taken, self._touched = list(self._touched), set()
        return taken

    def _carry(self, fresh: Handle, ids: list[UUID]) -> None:
        """Makes the points equal in `fresh`. Ids, not operations: the last state is all that counts."""
        live, pace = self._live(), Pace(64)
        for wanted in pace.slices(ids):
            with pace.measured(len(wanted)):
                _carry_slice(live, fresh, wanted)
            breathe()

    def _wait_unread(self, handle: Handle) -> None:
        with self._leases:
            self._leases.wait_for(lambda: handle.readers == 0)


def _carry_slice(live: Handle, fresh: Handle, ids: Sequence[UUID]) -> None:
    require_space(fresh.folder)
    records: list[Any] = live.shard.retrieve(list(ids), True, True)
    if records:
        points = [edge.Point(record.id, record.vector, record.payload) for record in records]
        fresh.shard.update(edge.UpdateOperation.upsert_points(points))
    if gone := set(ids) - {record.id for record in records}:
        fresh.shard.update(edge.UpdateOperation.delete_points(list(gone)))
    fresh.unflushed += len(ids)


def sync_log(folder: Path) -> None:
    """fsyncs Edge's log, from which it repairs the rest; its own `flush()` holds the GIL for up to 170 ms."""
    while not _synced(folder / "wal"):
        pass


def _synced(log: Path) -> bool:
    try:
        for path in [*log.iterdir(), log]:
            sync_file(path)
    except FileNotFoundError:
        # Edge has just renamed a full file (open-2 to closed-2): its data is under the new name.
        return False
    return True
