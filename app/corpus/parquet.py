"""Rows of Parquet files as plain JSON values, and passages as rows, with `pyarrow`: an extra, since it is large."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from app.errors import BadInput

BATCH_ROWS = 512
NUMBERS = ("halffloat", "float", "double")
INSTALL = "install pyarrow: pip install 'adiabat[parquet]'"


def read_rows(name: str) -> Iterator[dict[str, Any]]:
    """Raises `BadInput`."""
    with _opened(name) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                yield {column: plain(value) for column, value in row.items()}


def read_vectors(name: str, column: str) -> Iterator[tuple[list[dict[str, Any]], list[Any]]]:
    """Rows without `column`, which holds lists of numbers, and these lists, as arrays; None where there is none.

    Raises `BadInput`, also where the column holds no lists of numbers.
    """
    with _opened(name) as file:
        kind = file.schema_arrow.field(column).type
        if not hasattr(kind, "value_type") or str(kind.value_type) not in NUMBERS:
            raise BadInput(f"The column {column!r} of {name} holds {kind}; lists of numbers are expected.")
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            rest = batch.drop_columns([column])
            rows = [{key: plain(value) for key, value in row.items()} for row in rest.to_pylist()]
            lists = [each.values.to_numpy(zero_copy_only=False) if each.is_valid else None for each in batch[column]]
            yield rows or [{} for _ in lists], lists


class PassageWriter:
    """Writes passages with their vectors to `path`; `about` is the file's metadata under `adiabat`.

    Raises `BadInput` where pyarrow is missing.
    """

    def __init__(self, path: Path, about: str) -> None:
        self._path = path
        self._about = about
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, passages: Sequence[Mapping[str, Any]]) -> None:
        """A row group. All vectors have the length of the first."""
        try:
            import pyarrow
            from pyarrow.parquet import ParquetWriter
        except ImportError as error:
            raise BadInput(f"{self._path}: to write Parquet, {INSTALL}.") from error
        if not passages:
            return
        if self._writer is None:
            dimension = len(passages[0]["vector"])
            texts = [(name, pyarrow.string()) for name in ("id", "title", "text", "metadata")]
            schema = pyarrow.schema([*texts, ("vector", pyarrow.list_(pyarrow.float32(), dimension))])
            self._writer = ParquetWriter(self._path, schema.with_metadata({"adiabat": self._about}))
        rows = [{**each, "metadata": json.dumps(each["metadata"], ensure_ascii=False)} for each in passages]
        self._writer.write_table(pyarrow.Table.from_pylist(rows, schema=self._writer.schema))


def columns(name: str) -> list[str]:
    """Raises `BadInput`."""
    with _opened(name) as file:
        return list(file.schema_arrow.names)


def count_rows(name: str) -> int:
    """Raises `BadInput`."""
    with _opened(name) as file:
        return int(file.metadata.num_rows)


def plain(value: Any) -> Any:
    """As JSON has it: dates in ISO 8601, NaN as None. Of a struct what is None is left out: it only fills up."""
    if isinstance(value, dict):
        return {key: inner for key, each in value.items() if (inner := plain(each)) is not None}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float | Decimal):
        return None if math.isnan(value) else float(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return value


@contextmanager
def _opened(name: str) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise BadInput(f"{name}: to read Parquet, {INSTALL}.") from error
    if not Path(name).is_file():
        raise BadInput(f"{name} cannot be read; Parquet is read from a file, not from a pipe.")
    try:
        with ParquetFile(name) as file:
            yield file
    except (ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{name} cannot be read as Parquet ({error}).") from error
