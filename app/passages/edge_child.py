"""Long work on a copy of a shard, in a process of its own: `python -m app.passages.edge_child`.

Edge holds the GIL while it optimizes (6 s for 12,000 vectors); here nobody else needs it. Prints JSON.
"""

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import qdrant_edge as edge

from app.passages.disk import sync_tree
from app.passages.edge_shard import load_shard
from app.passages.export import write_export
from app.passages.index_space import IndexSpace
from app.passages.payload import DENSE, to_stored
from app.passages.store import StoredPassage

PAGE = 1_000
PR_SET_PDEATHSIG = 1


def index(shard_folder: Path, space: IndexSpace) -> dict[str, object]:
    """Builds the HNSW graphs, all of them where the config has changed since, drops deleted points, flushes the folder.

    `changed`: if it did.
    """
    shard = load_shard(shard_folder, space)
    changed = shard.optimize()
    shard.flush()
    shard.close()
    sync_tree(shard_folder)
    return {"changed": changed}


def check(shard_folder: Path) -> dict[str, object]:
    """Reads all of it: whether this ends the process is what somebody wants to know."""
    return {"count": sum(len(page) for page in read_all(load_shard(shard_folder)))}


def export(shard_folder: Path, target: Path, space: IndexSpace, writes: int) -> dict[str, object]:
    shard = load_shard(shard_folder)
    return {"count": write_export(target, read_all(shard), space, writes)}


def read_all(shard: "edge.EdgeShard") -> Iterator[list[StoredPassage]]:
    cursor = None
    while True:
        request = edge.ScrollRequest(offset=cursor, limit=PAGE, with_payload=True, with_vector=[DENSE])
        records, cursor = shard.scroll(request)
        yield [to_stored(record.payload, record.vector) for record in records]
        if cursor is None:
            return


def die_with_parent(parent: int) -> None:
    """After kill -9 of the service nobody needs the result, and the next open removes the folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit("the service ended before its child began")


def main() -> None:
    parser = argparse.ArgumentParser(prog="edge_child")
    parser.add_argument("--parent", type=int, required=True, help="process id of the service")
    work = parser.add_subparsers(dest="work", required=True)
    indexing = work.add_parser("index")
    checking = work.add_parser("check")
    exporting = work.add_parser("export")
    for one in (indexing, checking, exporting):
        one.add_argument("shard", type=Path)
        one.add_argument("--space", required=True)
    exporting.add_argument("target", type=Path)
    exporting.add_argument("--writes", type=int, required=True)
    given = parser.parse_args()

    os.nice(19)
    die_with_parent(given.parent)
    space = IndexSpace.from_dict(orjson.loads(given.space))
    if given.work == "index":
        result = index(given.shard, space)
    elif given.work == "check":
        result = check(given.shard)
    else:
        result = export(given.shard, given.target, space, given.writes)
    sys.stdout.buffer.write(orjson.dumps(result))


if __name__ == "__main__":
    main()
