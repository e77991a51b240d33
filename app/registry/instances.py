"""The services on a registry: who lives, by the database's clock, and which generation each has taken up."""

import os
import socket
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select

from app.errors import Conflict
from app.registry.clock import ahead_s, now
from app.registry.database import Database
from app.registry.tables import instances

LEASE_S = 10.0  # whoever gave no sign of life for so long is not waited for, and checks the history before it answers
WITH_ID = " with the id "  # between what people call a store and what tells it from another of that name
FORGET_S = 3600.0  # a killed service never takes its leave


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    id: str
    name: str  # for people: host and process id
    store: str  # where its passages are
    generation: int  # that it answers with
    failed_generation: int | None  # that it could not take up
    reason: str | None  # ... and why
    clock_ahead_s: float | None = None  # of its machine, against the database's, at its last sign of life


class Instances:
    def __init__(self, database: Database) -> None:
        self._database = database

    def join(self, new: Instance) -> None:
        """Become one of them. Raises `Conflict` while one lives whose passages are elsewhere: another cluster."""
        with self._database.write() as connection:
            for row in connection.execute(select(instances)):
                if _is_dead_here(row):
                    connection.execute(delete(instances).where(instances.c.id == row.id))
            connection.execute(delete(instances).where(instances.c.seen_at < now() - FORGET_S))
            # One that is making the collection at this moment has no id of it to tell yet.
            same = (new.store, new.store.partition(WITH_ID)[0])
            other = connection.execute(select(instances).where(_alive(), instances.c.store.not_in(same))).first()
            if other is not None:
                raise Conflict(
                    f"The registry at {self._database.name} is in use by {other.name} with {other.store}; this service "
                    f"has {new.store}. Services on one registry share one collection on a Qdrant server: set "
                    "ADIABAT_QDRANT_URL and ADIABAT_COLLECTION as there, or ADIABAT_REGISTRY_URL to another database."
                )
            connection.execute(insert(instances).values(id=new.id, **_columns(new, None), started_at=now()))

    def beat(self, this: Instance) -> float | None:
        """A sign of life that says where it stands. One that was forgotten meanwhile is back.

        Returns by how many seconds this machine's clock is ahead of the database's, where that can be told.
        """
        with self._database.write(shared=True) as connection:
            ahead = ahead_s(connection)
            values = _columns(this, ahead)
            changed = connection.execute(instances.update().where(instances.c.id == this.id).values(values))
            if changed.rowcount == 0:
                connection.execute(insert(instances).values(id=this.id, **values, started_at=now()))
        return ahead

    def leave(self, instance_id: str) -> None:
        with self._database.write(shared=True) as connection:
            connection.execute(delete(instances).where(instances.c.id == instance_id))

    def live(self) -> list[Instance]:
        """The oldest first."""
        query = select(instances).where(_alive()).order_by(instances.c.started_at, instances.c.id)
        names = Instance.__slots__
        with self._database.read() as connection:
            return [
                Instance(**{name: value for name, value in row._asdict().items() if name in names})
                for row in connection.execute(query)
            ]


def _alive() -> ColumnElement[bool]:
    """Seen lately; not in times to come either, as one that died before the clock was set back."""
    return instances.c.seen_at.between(now() - LEASE_S, now() + LEASE_S)


def _columns(of: Instance, clock_ahead_s: float | None) -> dict[str, Any]:
    values = {name: getattr(of, name) for name in Instance.__slots__ if name != "id"}
    process = {"host": socket.gethostname(), "pid": os.getpid(), "clock_ahead_s": clock_ahead_s}
    return values | process | {"seen_at": now()}


def _is_dead_here(row: Row[Any]) -> bool:
    """A process of this machine that has ended; in a container every start has the same number, this one's."""
    if row.host != socket.gethostname():
        return False
    if row.pid == os.getpid():
        return True
    try:
        os.kill(row.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
