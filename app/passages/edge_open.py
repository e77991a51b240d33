"""Opens the shard that counts, or makes the first one; what is damaged, gone or without space is told in words."""

import ctypes
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import qdrant_edge as edge

from app.errors import Unavailable
from app.passages import lexical
from app.passages.disk import require_space, sync_file, sync_tree
from app.passages.edge_children import Children, TimedOut
from app.passages.edge_folder import FIRST_SHARD, Current, EdgeFolder, mend
from app.passages.edge_shard import Handle, create_field_indexes, create_shard, in_our_words, load_shard
from app.passages.index_space import IndexSpace

log = logging.getLogger(__name__)

DONT_NEED = 4  # MADV_DONTNEED of Linux; what was written to a shared mapping stays
CHECK_S = 120.0  # for a child that reads a shard which may be damaged; what takes longer is large, not damaged


def open_shard(folder: EdgeFolder, space: IndexSpace, indexed_fields: Iterable[str]) -> Handle:
    """Raises IndexSpaceMismatch, and Unavailable where the shard cannot be read or the disk is full."""
    current = folder.read_current()
    if current is None:
        current = Current(space, folder.root / FIRST_SHARD, lexical.FORMAT, 0)
        folder.write_current(*current)
        shard = current.shard
    else:
        shard = current.shard
        current.index_space.require(space)
        if not shard.exists() and folder.writes.value:
            raise Unavailable(f"The passages in {shard} are gone. {mend(folder.root)}")
    folder.remove_leftovers(shard)
    require_space(folder.root)  # Edge repairs what it opens from its log, through memory maps
    # CURRENT is written before the first shard is made, so a crash may have come between the two.
    if shard.name == FIRST_SHARD and not shard.exists():
        _create(folder, shard, space)
    opened = _load(folder, shard)
    handle = Handle(shard=opened, folder=shard, lexical=current.lexical == lexical.FORMAT, counted=current.counted)
    with in_our_words(f"The passages in {shard} cannot be opened", mend(folder.root)):
        create_field_indexes(handle.shard, indexed_fields)
    leave_pages(shard)
    return handle


def _load(folder: EdgeFolder, shard: Path) -> "edge.EdgeShard":
    """On some damage Edge ends the process: who finds that the last one did not get through sends a child first."""
    if folder.opening.exists():
        try:
            Children().run("check", str(shard), timeout_s=CHECK_S)
        except TimedOut:
            log.warning("%s could not be read within %g s; it is opened all the same", shard, CHECK_S)
        except Unavailable as error:
            raise Unavailable(f"The passages in {shard} are damaged. {error.detail} {mend(folder.root)}") from error
    folder.opening.touch()
    try:
        return load_shard(shard)
    finally:
        folder.opening.unlink()


def _create(folder: EdgeFolder, shard: Path, space: IndexSpace) -> None:
    build = folder.new_build()
    create_shard(build, space)
    sync_tree(build)
    build.rename(shard)
    sync_file(folder.root)


def leave_pages(folder: Path) -> None:
    """Count the mapped pages of the folder's files to the system's cache again and not to this process.

    Opening reads the log and an empty chunk of vectors from end to end, 76 MB that no search asks for; what one does
    ask for is mapped again at once. Call before anybody uses the shard: a range must not be unmapped meanwhile. Does
    something on Linux alone.
    """
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return
    within = f"{os.path.realpath(folder)}/"
    advise = ctypes.CDLL(None).madvise
    for line in lines:
        span, allowed, *_, path = line.split(maxsplit=5)
        if path.startswith(within) and allowed.endswith("s"):
            begin, end = (int(each, 16) for each in span.split("-"))
            advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), DONT_NEED)
