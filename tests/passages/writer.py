"""A process that is killed by tests: writes passages without end and prints each id once it is acknowledged.

python -m tests.passages.writer FOLDER INDEX_AFTER [LOG_LIMIT]

With LOG_LIMIT every write is `durable`, and Edge flushes by itself after so many points.
"""

import itertools
import sys
from pathlib import Path

from app.passages import Passage, Point, edge
from tests.passages.conftest import DIM, SPACE, unit_vectors

BATCH = 50


def main() -> None:
    if durable := len(sys.argv) > 3:
        edge.LOG_LIMIT = int(sys.argv[3])
    store = edge.EdgeStore(Path(sys.argv[1]), SPACE, index_after=int(sys.argv[2]))
    vectors = unit_vectors(1_000, DIM)
    for start in itertools.count(0, BATCH):
        batch = [
            Point(passage=Passage(id=f"w{i}", text=f"t{i}"), content_hash=str(i), vector=vectors[i % 1_000])
            for i in range(start, start + BATCH)
        ]
        store.upsert(batch, durable=durable)
        if start >= 4 * BATCH:
            store.delete([f"w{start - 4 * BATCH}"], durable=durable)
        print(start, int(store.info().indexing), flush=True)


if __name__ == "__main__":
    main()
