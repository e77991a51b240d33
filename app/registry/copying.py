"""A registry brought to another database: from the file of one machine to PostgreSQL, or back."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, func, insert, select, text

from app.errors import Conflict
from app.registry.database import Database
from app.registry.tables import (
    api_keys,
    audit,
    clicks,
    encoders,
    idempotency_keys,
    instances,
    judgments,
    metadata,
    query_log,
    workers,
)

AT_ONCE = 500
OF_THE_MOMENT = frozenset({workers, instances, idempotency_keys})  # who is alive, and which calls are going on
# What a database counts on from by itself.
COUNTED = (
    encoders.c.id,
    judgments.c.sequence,
    query_log.c.sequence,
    clicks.c.sequence,
    api_keys.c.sequence,
    audit.c.sequence,
)


def copy_registry(source: Database, target: Database) -> dict[str, int]:
    """Rows by table. All of it or nothing. Raises `Conflict` where `target` holds a registry already.

    Nobody may write to `source` meanwhile: what is written after a table was read stays behind.
    """
    counts: dict[str, int] = {}
    with source.read() as reading, target.write() as writing:
        if writing.scalar(select(func.count()).select_from(encoders)):
            raise Conflict(f"The database at {target.name} holds a registry already; name an empty one.")
        for table in metadata.sorted_tables:
            if table not in OF_THE_MOMENT:
                counts[table.name] = sum(_put(writing, table, rows) for rows in _read(reading, table))
        if target.on_postgresql:
            _count_on(writing)
    return counts


def _read(connection: Connection, table: Table) -> Iterator[Sequence[RowMapping]]:
    yield from connection.execute(select(table)).mappings().partitions(AT_ONCE)


def _put(connection: Connection, table: Table, rows: Sequence[RowMapping]) -> int:
    values: list[dict[str, Any]] = [dict(row) for row in rows]
    connection.execute(insert(table), values)
    return len(values)


def _count_on(connection: Connection) -> None:
    """Numbers that were given by hand are unknown to PostgreSQL's own counters."""
    for column in COUNTED:
        if newest := connection.scalar(select(func.max(column))):
            counter = {"table": column.table.name, "column": column.name, "newest": newest}
            connection.execute(text("SELECT setval(pg_get_serial_sequence(:table, :column), :newest)"), counter)
