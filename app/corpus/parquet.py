"""Rows of Parquet files as plain JSON values, with `pyarrow`: an extra, since few need its size."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.errors import BadInput

BATCH_ROWS = 512


def read_rows(name: str) -> Iterator[dict[str, Any]]:
    """Raises `BadInput`."""
    with _opened(name) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                yield {column: plain(value) for column, value in row.items()}


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
        sentence = f"{name}: to read Parquet, install pyarrow: pip install 'adiabat[parquet]'."
        raise BadInput(sentence) from error
    if not Path(name).is_file():
        raise BadInput(f"{name} cannot be read; Parquet is read from a file, not from a pipe.")
    try:
        with ParquetFile(name) as file:
            yield file
    except (ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{name} cannot be read as Parquet ({error}).") from error
