"""Opens the shard that counts, or makes the first one; what is damaged, gone or without space is told in words."""

from collections.abc import Iterable
from pathlib import Path

import qdrant_edge as edge

from app.errors import Unavailable
from app.passages.disk import require_space, sync_file, sync_tree
from app.passages.edge_children import Children
from app.passages.edge_folder import FIRST_SHARD, EdgeFolder, mend
from app.passages.edge_shard import Handle, create_field_indexes, create_shard, in_our_words, load_shard
from app.passages.index_space import IndexSpace

CHECK_S = 120.0  # for a child that reads all of a shard which may be damaged


def open_shard(folder: EdgeFolder, space: IndexSpace, indexed_fields: Iterable[str]) -> Handle:
    """Raises IndexSpaceMismatch, and Unavailable where the shard cannot be read or the disk is full."""
    current = folder.read_current()
    if current is None:
        shard = folder.root / FIRST_SHARD
        folder.write_current(space, shard)
    else:
        stored, shard = current
        stored.require(space)
        if not shard.exists() and folder.writes.value:
            raise Unavailable(f"The passages in {shard} are gone. {mend(folder.root)}")
    folder.remove_leftovers(shard)
    require_space(folder.root)  # Edge repairs what it opens from its log, through memory maps
    # CURRENT is written before the first shard is made, so a crash may have come between the two.
    if shard.name == FIRST_SHARD and not shard.exists():
        _create(folder, shard, space)
    handle = Handle(shard=_load(folder, shard), folder=shard)
    with in_our_words(f"The passages in {shard} cannot be opened", mend(folder.root)):
        create_field_indexes(handle.shard, indexed_fields)
    return handle


def _load(folder: EdgeFolder, shard: Path) -> "edge.EdgeShard":
    """On some damage Edge ends the process: who finds that the last one did not get through sends a child first."""
    if folder.opening.exists():
        try:
            Children().run("check", str(shard), timeout_s=CHECK_S)
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
