"""Who is alive among the trainers, by the heartbeats they write."""

from sqlalchemy import delete, func, select

from app.registry.clock import ahead_s, now
from app.registry.database import Database
from app.registry.tables import workers

FORGET_S = 24 * 3600.0  # a killed trainer never takes its leave


class Workers:
    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, name: str) -> float | None:
        """A sign of life. Returns by how many seconds this machine's clock is ahead of the database's, if it can."""
        gone = workers.c.seen_at < now() - FORGET_S
        with self._database.write(shared=True) as connection:
            connection.execute(delete(workers).where(gone))
            ahead = ahead_s(connection)
            values = {"seen_at": now(), "clock_ahead_s": ahead}
            connection.execute(self._database.upsert(workers, {"name": name}, values))
        return ahead

    def leave(self, name: str) -> None:
        with self._database.write(shared=True) as connection:
            connection.execute(delete(workers).where(workers.c.name == name))

    def ages_s(self) -> dict[str, float]:
        """Seconds since each worker was last seen; or until then, where the clock was set back meanwhile."""
        with self._database.read() as connection:
            query = select(workers.c.name, func.abs(now() - workers.c.seen_at).label("age_s"))
            return {row.name: row.age_s for row in connection.execute(query)}
