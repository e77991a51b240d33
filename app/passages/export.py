"""Writes all vectors to a folder, for a reader that has neither store nor texts. Memory stays bounded.

    vectors.npy   (n, dim) fp32 in C order, to be memory-mapped
    ids.json      the external id of each row
    groups.npy    (n,) int32: rows whose embedded texts are identical share a number
    meta.json     {"format", "count", "dim", "writes", "index_space"}, written last

The folder is written beside its place and renamed into it, so it is there whole or not at all.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from app.errors import InvalidField
from app.passages.disk import remove_tree, sync_file, sync_tree
from app.passages.index_space import IndexSpace
from app.passages.store import StoredPassage

FORMAT = 1


def is_complete(folder: Path) -> bool:
    """Raises InvalidField if something else is there."""
    if (folder / "meta.json").is_file():
        return True
    if folder.exists():
        raise InvalidField("folder", f"{folder} exists and is no export; name one that does not exist yet.")
    return False


def write_export(folder: Path, pages: Iterable[list[StoredPassage]], space: IndexSpace, writes: int) -> int:
    """Returns the number of rows. `writes` is the store's write counter at the time that `pages` shows."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.parent.glob(f".{folder.name}.*.tmp"):
        remove_tree(abandoned)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        count = _write_rows(draft, pages, space)
        told = {"format": FORMAT, "count": count, "dim": space.dimension, "writes": writes}
        meta = {**told, "index_space": space.to_dict()}
        (draft / "meta.json").write_bytes(orjson.dumps(meta, option=orjson.OPT_INDENT_2))
        sync_tree(draft)
        draft.rename(folder)
    except BaseException:
        remove_tree(draft)
        raise
    sync_file(folder.parent)
    return count


def _write_rows(draft: Path, pages: Iterable[list[StoredPassage]], space: IndexSpace) -> int:
    digests: list[bytes] = []
    count = 0
    with ExitStack() as files:
        vectors = files.enter_context((draft / "vectors.npy").open("wb"))
        ids = files.enter_context((draft / "ids.json").open("wb"))
        _write_header(vectors, 0, space.dimension)
        ids.write(b"[")
        for page in pages:
            if not page:
                continue
            vectors.write(_matrix(page).tobytes())
            ids.write((b"," if count else b"") + orjson.dumps([one.passage.id for one in page])[1:-1])
            digests.append(b"".join(_digest(one, space) for one in page))
            count += len(page)
        ids.write(b"]")
        # NumPy pads the header for a first axis of any length, so the true count fits in the same place.
        vectors.seek(0)
        _write_header(vectors, count, space.dimension)
    np.save(draft / "groups.npy", _groups(b"".join(digests)))
    return count


def _write_header(file: IO[bytes], count: int, dimension: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
    np.lib.format.write_array_header_1_0(file, header)


def _matrix(page: list[StoredPassage]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.stack([one.vector for one in page if one.vector is not None]).astype("<f4", copy=False)


def _digest(one: StoredPassage, space: IndexSpace) -> bytes:
    """Eight bytes: two different texts among ten million meet with a chance of 3 in a million."""
    text = space.render(one.passage.title, one.passage.text)
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _groups(digests: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
    # (n,) numbers from 0, in the order of the digests
    _, groups = np.unique(np.frombuffer(digests, dtype="<u8"), return_inverse=True)
    return groups.astype(np.int32)
