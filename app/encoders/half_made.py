"""Names for what is being made, by which a later start tells whether its maker still lives."""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

STALE_S = 24 * 3600
_STARTED_AT = time.time()


def half_made(folder: Path, kind: str = "half") -> Path:
    """A path in `folder` that nobody else has. `kind` is one word."""
    return folder / f".{kind}-{_here()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def _here() -> str:
    """Where a process id means one process: containers may share a host's name, and not its processes."""
    try:
        return f"{socket.gethostname()}_{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return socket.gethostname()


def sweep(paths: Iterable[Path]) -> None:
    """Remove what dead processes left of these: files and folders."""
    for path in paths:
        try:
            if not _abandoned(path):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError:  # another process was faster, or it is not ours to remove
            continue


def _abandoned(path: Path) -> bool:
    made_at = path.stat().st_mtime
    host, pid = _maker(path)
    if host != _here():  # another container: its pids say nothing here
        return time.time() - made_at > STALE_S
    if pid == os.getpid():  # in a container every start is id 1
        return made_at < _STARTED_AT
    return not _alive(pid)


def _maker(path: Path) -> tuple[str, int]:
    try:
        host, pid, _ = path.name.partition("-")[2].rsplit("-", 2)
        return host, int(pid)
    except ValueError:  # not a name of ours
        return "", 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
