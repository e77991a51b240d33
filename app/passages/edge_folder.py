"""The folder of an Edge store: which shard counts, who holds it, how many writes it has seen.

LOCK            held (flock) by the process that has the store open; its content is that process's id
CURRENT         JSON: the index space, the name of the shard that counts, and of what format its lexical side is
OPENING         there while the shard is opened; left where that ended the process
WRITES          the write counter: 8 bytes, mapped, so that kill -9 loses no count
shard-000001/   an Edge shard; any other than the one in CURRENT is a leftover
build-…/        a copy on which a child works; always a leftover after a crash
"""

import fcntl
import mmap
import os
import struct
import threading
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from app.errors import DataDirLocked, Unavailable
from app.passages.disk import remove_tree, write_whole
from app.passages.index_space import IndexSpace

FIRST_SHARD = "shard-000001"
FORMAT = 1
COUNT = "<q"  # how WRITES is written


class Current(NamedTuple):
    index_space: IndexSpace
    shard: Path
    lexical: int | None  # `lexical.FORMAT` of its terms; None where it has none, or not of all passages
    counted: int  # vectors that Edge counted as indexed when the index was made


def mend(root: Path) -> str:
    """What to do where the store in `root` is damaged."""
    return (
        f"Stop the service and restore a backup ('adiabat restore FILE'); without one move {root} away, start the "
        "service and ingest the passages again."
    )


class EdgeFolder:
    """Holds the lock from construction to `close`. Raises DataDirLocked naming the process that has it."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self._lock = _lock(root / "LOCK")
        self._builds = count()
        self.opening = root / "OPENING"
        self.writes = WriteCounter(root / "WRITES")

    def read_current(self) -> Current | None:
        """What counts; None in a new folder."""
        path = self.root / "CURRENT"
        if not path.exists():
            if any(self.root.glob("shard-*")):
                raise Unavailable(f"{self.root} holds shards but no CURRENT file; restore it, or move them away.")
            return None
        try:
            record: dict[str, Any] = orjson.loads(path.read_bytes())
            if record["format"] != FORMAT:
                raise Unavailable(f"{path} has format {record['format']}, this version reads format {FORMAT}.")
            space = IndexSpace.from_dict(record["index_space"])
            return Current(space, self.root / record["shard"], record.get("lexical"), record.get("counted", 0))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise Unavailable(f"{path} is damaged ({error}). {mend(self.root)}") from error

    def write_current(self, index_space: IndexSpace, shard: Path, lexical: int | None, counted: int) -> None:
        _write_current(self.root, index_space, shard.name, lexical, counted)

    def next_shard(self, current: Path) -> Path:
        return self.root / f"shard-{int(current.name.removeprefix('shard-')) + 1:06d}"

    def new_build(self) -> Path:
        return self.root / f"build-{os.getpid()}-{next(self._builds)}"

    def remove_leftovers(self, current: Path) -> None:
        for leftover in [*self.root.glob("build-*"), *self.root.glob("shard-*")]:
            if leftover != current:
                remove_tree(leftover)

    def close(self) -> None:
        self.writes.close()
        os.close(self._lock)


def describe(
    root: Path, index_space: IndexSpace, shard: str, *, lexical: int | None, counted: int, writes: int
) -> None:
    """Make `root`, which holds a copy of a shard, a folder to open."""
    _write_current(root, index_space, shard, lexical, counted)
    write_whole(root / "WRITES", struct.pack(COUNT, writes))


def _write_current(root: Path, index_space: IndexSpace, shard: str, lexical: int | None, counted: int) -> None:
    record: dict[str, Any] = {"format": FORMAT, "shard": shard, "lexical": lexical, "counted": counted}
    record["index_space"] = index_space.to_dict()
    write_whole(root / "CURRENT", orjson.dumps(record, option=orjson.OPT_INDENT_2))


def recorded_index_space(root: Path) -> IndexSpace | None:
    """Of the store in `root`, whoever holds it; None where there is none."""
    path = root / "CURRENT"
    return IndexSpace.from_dict(orjson.loads(path.read_bytes())["index_space"]) if path.exists() else None


class WriteCounter:
    """Grows by one per write, restarts and kill -9 included."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(8)
            self._map = mmap.mmap(file.fileno(), 8)
        self._lock = threading.Lock()

    @property
    def value(self) -> int:
        return int(struct.unpack(COUNT, self._map[:])[0])

    def add(self) -> None:
        with self._lock:
            self._map[:] = struct.pack(COUNT, self.value + 1)

    def sync(self) -> None:
        self._map.flush()

    def close(self) -> None:
        self._map.flush()
        self._map.close()


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode() or "unknown"
        os.close(descriptor)
        raise DataDirLocked(
            f"The passage store in {path.parent} is held by process {holder}. "
            "Stop it, or give this one a folder of its own (ADIABAT_DATA_DIR).",
            holder=holder,
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
