"""Which datasets there are: a name, the digest of its content, and what it counts."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from app.errors import DatasetNotFound
from app.registry.database import Database
from app.registry.tables import datasets


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRecord:
    name: str
    digest: str
    counts: dict[str, Any]
    created_at: float


class Datasets:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, name: str, digest: str, counts: dict[str, Any]) -> DatasetRecord:
        with self._database.write() as connection:
            connection.execute(delete(datasets).where(datasets.c.name == name))
            values = {"name": name, "digest": digest, "counts": counts, "created_at": time.time()}
            row = connection.execute(insert(datasets).values(**values).returning(*datasets.c)).one()
            return DatasetRecord(**row._asdict())

    def get(self, name: str) -> DatasetRecord:
        with self._database.read() as connection:
            row = connection.execute(select(datasets).where(datasets.c.name == name)).one_or_none()
        if row is None:
            raise DatasetNotFound(
                f"No dataset is named {name!r}; GET /datasets lists them, PUT /datasets/{name} makes it."
            )
        return DatasetRecord(**row._asdict())

    def all(self) -> list[DatasetRecord]:
        with self._database.read() as connection:
            return [
                DatasetRecord(**row._asdict()) for row in connection.execute(select(datasets).order_by(datasets.c.name))
            ]
