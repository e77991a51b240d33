"""Who is alive among the trainers, by the heartbeats they write."""

import time

from sqlalchemy import delete, insert, or_, select

from app.registry.database import Database
from app.registry.tables import workers

FORGET_S = 24 * 3600.0  # a killed trainer never takes its leave


class Workers:
    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, name: str) -> None:
        with self._database.write() as connection:
            now = time.time()
            gone = workers.c.seen_at < now - FORGET_S
            connection.execute(delete(workers).where(or_(workers.c.name == name, gone)))
            connection.execute(insert(workers).values(name=name, seen_at=now))

    def leave(self, name: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))

    def ages_s(self) -> dict[str, float]:
        """Seconds since each worker was last seen."""
        now = time.time()
        with self._database.read() as connection:
            return {row.name: now - row.seen_at for row in connection.execute(select(workers))}
