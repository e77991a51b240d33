"""One service per data folder: a lock that dies with its process, and names it while it lives."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import DataDirLocked

LOCK_FILE = "service.lock"


@contextmanager
def data_dir_lock(data_dir: Path) -> Iterator[None]:
    """Hold `data_dir` for this process. Raises `DataDirLocked`, naming the holder."""
    path = data_dir / LOCK_FILE
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise DataDirLocked(
                f"{data_dir} is in use by {holder}: one service per data folder. Stop that one, or "
                "choose another ADIABAT_DATA_DIR."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
