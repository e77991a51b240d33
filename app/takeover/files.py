"""Vectors in files: beside a corpus in BEIR shape, or in a column of Parquet."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from app.beir import CORPUS, read_jsonl
from app.corpus import parquet
from app.errors import BadInput
from app.takeover.source import Found

AT_ONCE = 256


class FileSource:
    """Rows that `read` gives anew each time. Files say nothing of how they are searched: by cosine, it is taken."""

    by_cosine = True

    def __init__(self, said: str, dimension: int, count: int, read: Callable[[], Iterator[Found]]) -> None:
        self.said = said
        self.dimension = dimension
        self._count = count
        self._read = read

    def count(self) -> int:
        return self._count

    def sample(self, ranks: Sequence[int]) -> list[Found]:
        wanted = set(ranks)
        return [found for place, found in enumerate(self._read()) if place in wanted]

    def pages(self) -> Iterator[list[Found]]:
        rows = self._read()
        while page := list(islice(rows, AT_ONCE)):
            yield page


def beir_source(folder: Path, vectors: Path) -> FileSource:
    """`folder/corpus.jsonl`, and its vectors in its order as `vectors`, (n, dim) floats in NumPy's format.

    Raises `BadInput` where one is missing or they are not of one length, and `BadDataset` naming a bad line.
    """
    corpus = folder / CORPUS
    if not corpus.is_file():
        raise BadInput(f"{folder} holds no {CORPUS}; a folder in BEIR shape is expected.")
    try:
        matrix = np.load(vectors, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{vectors} cannot be read as an array of NumPy ({error}).") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise BadInput(
            f"{vectors} has shape {matrix.shape} of {matrix.dtype}; (passages, dimensions) of floats is expected."
        )
    count = sum(1 for _ in read_jsonl(corpus))
    if count != len(matrix):
        raise BadInput(
            f"{vectors} has {len(matrix)} rows, and {corpus} has {count} passages: one row each, in their order."
        )

    def read() -> Iterator[Found]:
        for (number, line), row in zip(read_jsonl(corpus), matrix, strict=True):
            yield Found(at=f"line {number}", payload=line, vector=np.asarray(row, dtype=np.float32))

    return FileSource(str(corpus), int(matrix.shape[1]), count, read)


def parquet_source(said: str, names: Sequence[str], column: str) -> FileSource:
    """Every row a point, its vector in `column`. A column `metadata` may hold JSON. Raises `BadInput`."""
    for name in names:
        if column not in (there := parquet.columns(name)):
            raise BadInput(f"{name} has no column {column!r} (--vector-field); it has {', '.join(map(repr, there))}.")

    def read() -> Iterator[Found]:
        for name in names:
            number = 0
            for rows, lists in parquet.read_vectors(name, column):
                for row, vector in zip(rows, lists, strict=True):
                    number += 1
                    yield Found(at=f"{Path(name).name} row {number}", payload=_payload(row), vector=_floats(vector))

    first = next((found.vector for found in read() if found.vector is not None), None)
    if first is None:
        raise BadInput(f"The column {column!r} of {said} holds nothing.")
    return FileSource(said, len(first), sum(map(parquet.count_rows, names)), read)


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in row.items() if value is not None}
    if isinstance(written := given.get("metadata"), str):
        with suppress(ValueError):  # a plain string, which it may be under its own name
            given["metadata"] = json.loads(written)
    return given


def _floats(vector: Any) -> "np.ndarray[Any, np.dtype[np.float32]] | None":
    return None if vector is None else vector.astype(np.float32)
