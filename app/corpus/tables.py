"""CSV and Parquet: a passage to a row.

Every column but `id` (or `_id`), `text`, `title` and `metadata` is metadata under its own name, without a leading
`metadata.`; empty cells are left out. Parquet keeps its types. CSV knows none: its metadata are strings, unless a
column `metadata` holds a JSON object.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from app.corpus import parquet
from app.corpus.line import FIELDS, Json, Line, OnBad, parse, read_each, to_passage
from app.errors import BadInput

if TYPE_CHECKING:
    from _csv import Reader

# More than a passage may have, so that a long one is told by its line; a quote that is never closed ends here.
MAX_CELL_CHARS = 2**20


def read_csv(name: str, lines: TextIO, on_bad: OnBad) -> Iterator[Line]:
    """Separated by commas, with a header row. Raises `BadInput` for a header that names no passages."""
    csv.field_size_limit(MAX_CELL_CHARS)
    rows = csv.reader(lines, strict=True)
    try:
        header = [column.strip() for column in next(rows, [])]
    except csv.Error as error:
        raise BadInput(f"{name} is not CSV ({error}).") from error
    _check_columns(name, header)
    return read_each(f"{name} line", _numbered(rows), partial(_of_cells, header), on_bad)


def read_parquet(name: str, on_bad: OnBad) -> Iterator[Line]:
    """Raises `BadInput` for columns that make no passages, and where pyarrow is missing."""
    _check_columns(name, parquet.columns(name))
    return read_each(f"{name} row", enumerate(parquet.read_rows(name), 1), _of_row, on_bad)


def _check_columns(name: str, columns: Sequence[str]) -> None:
    if not {"id", "_id"} & set(columns) or "text" not in columns:
        given = ", ".join(map(repr, columns))[:200] or "none"
        hint = " Separate the columns by commas." if len(columns) == 1 else ""
        raise BadInput(f"{name} needs the columns 'id' (or '_id') and 'text'; it has {given}.{hint}")
    keys = [_metadata_key(column) for column in columns]
    if "" in keys:
        raise BadInput(f"{name} has a column without a name; name it, or leave it out.")
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise BadInput(f"{name} has the column {twice!r} twice; name each once.")


def _metadata_key(column: str) -> str:
    return column.removeprefix("metadata.")


def _numbered(rows: "Reader") -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Rows by the line they begin on: a cell in quotes may hold newlines."""
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error
        else:
            if row:
                yield number, row


def _of_cells(header: Sequence[str], row: list[str] | csv.Error) -> Json:
    if isinstance(row, csv.Error):
        raise ValueError(f"is not CSV ({row})")
    if len(row) != len(header):
        raise ValueError(f"has {len(row)} cells, the header row has {len(header)}")
    return _of_row(dict(zip(header, row, strict=True)))


def _of_row(row: Mapping[str, Any]) -> Json:
    given = {column: value for column, value in row.items() if value not in (None, "")}
    metadata = given.pop("metadata", {})
    if isinstance(metadata, str):
        metadata = parse(metadata)
    if not isinstance(metadata, dict):
        raise ValueError("the column 'metadata' holds no JSON object")
    further = {_metadata_key(column): value for column, value in given.items() if column not in FIELDS}
    return to_passage({column: given[column] for column in given.keys() & FIELDS} | {"metadata": metadata | further})
