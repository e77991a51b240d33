"""The registry's file of SQLite read by itself: never migrated, never left with a log that was not there."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.errors import Unavailable
from app.registry.engines import PATIENCE_S

BUSY_S = 5


def open_for_reading(path: Path) -> sqlite3.Connection:
    # Without a log nobody has it open, and a reader that may make files would leave an empty log behind.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=BUSY_S)


@contextmanager
def snapshot(path: Path, target: Path) -> Iterator[sqlite3.Connection]:
    """Write what is committed at `path` to the file `target`; the block gets the copy, open.

    Until it ends nobody changes the registry, and so nobody removes what it names. Raises `Unavailable`.
    """
    try:
        with closing(_connect(path)) as holding, closing(_connect(path)) as reading:
            holding.execute("BEGIN IMMEDIATE")
            reading.execute("VACUUM INTO ?", (str(target),))
            with closing(_connect(target)) as copy:
                yield copy
    except sqlite3.Error as error:
        raise Unavailable(f"The registry at {path} could not be copied ({error}).") from error


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
