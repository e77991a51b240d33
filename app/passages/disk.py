"""Folders that must survive: copies, fsync, files that are there whole or not. Knows nothing of Qdrant."""

import errno
import os
import shutil
from pathlib import Path

from app.errors import Unavailable

# Qdrant Edge writes through memory maps: where the disk is full, that ends the process without a word.
MIN_FREE_BYTES = 64 * 2**20


def require_space(folder: Path, more_bytes: int = 0) -> None:
    """Raises `Unavailable` unless there is space for `more_bytes` and what is always kept free."""
    disk = os.statvfs(folder)
    free, needed = disk.f_bavail * disk.f_frsize, MIN_FREE_BYTES + more_bytes
    if free < needed:
        raise Unavailable(
            f"The disk of {folder} has {free / 2**20:.0f} MiB left, and {needed / 2**20:.0f} MiB are needed; what was "
            "acknowledged is stored. Free some space and try again."
        )


def allocated_bytes(folder: Path) -> int:
    """What its files take on disk: holes are not counted."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def sync_file(path: Path) -> None:
    """fsync of a file or a folder; Python releases the GIL meanwhile, Qdrant Edge's own flush does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(parent, name))
        sync_file(Path(parent))


def write_whole(path: Path, content: bytes) -> None:
    """Replaces `path`; after power loss it holds the old content or the new, never a part."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_file(path.parent)


def copy_tree(source: Path, target: Path) -> None:
    """Copies data, not holes: a fresh shard is 100 MB of preallocated files with 1 MB in them."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_dir():
            copy_tree(entry, target / entry.name)
        else:
            _copy_file(entry, target / entry.name)


def remove_tree(folder: Path) -> None:
    """What cannot be removed now (a child that is being killed still writes) is removed at the next open."""
    shutil.rmtree(folder, ignore_errors=True)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        size = os.fstat(read.fileno()).st_size
        position = 0
        while (start := _next_data(read.fileno(), position)) is not None:
            position = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            _copy_range(read.fileno(), write.fileno(), start, position)
        os.ftruncate(write.fileno(), size)


def _next_data(descriptor: int, position: int) -> int | None:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole is left
            return None
        raise


def _copy_range(read: int, write: int, start: int, end: int) -> None:
    os.lseek(write, start, os.SEEK_SET)
    while start < end:
        sent = os.sendfile(write, read, start, end - start)
        if sent == 0:  # the file was truncated meanwhile
            return
        start += sent
