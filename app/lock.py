"""One service per data folder: a lock that dies with its process, and names it while it lives."""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from app.errors import DataDirLocked, Unavailable

LOCK_FILE = "service.lock"
TURN_S = 30.0
POLL_S = 0.02


@contextmanager
def data_dir_lock(data_dir: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold `data_dir` for this process, or `shared` for several that keep no passages there.

    Raises `DataDirLocked`, naming the holder.
    """
    path = data_dir / LOCK_FILE
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise DataDirLocked(
                f"{data_dir} is in use by {holder}: one service per data folder. Stop that one, or "
                "choose another ADIABAT_DATA_DIR; several may share one where passages are on a Qdrant server "
                "(ADIABAT_QDRANT_URL)."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


class FileLock:
    """Between the threads of this process, and the processes that see the same file. A thread may take it again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.RLock()
        self._depth = 0
        self._file: TextIO | None = None

    def __enter__(self) -> None:
        """Raises `Unavailable` where another process does not let go, because it was stopped."""
        self._threads.acquire()
        try:
            if self._depth == 0:
                self._file = self._locked()
            self._depth += 1
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._file is not None:
            self._file.close()
        self._threads.release()

    def _locked(self) -> TextIO:
        file = self._path.open("a")
        until = time.monotonic() + TURN_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() > until:
                    file.close()
                    raise Unavailable(f"Another service holds {self._path}; repeat the call.") from None
            time.sleep(POLL_S)
