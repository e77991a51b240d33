"""How the searches of both encoders of a canary went, minute by minute, summed over all services."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update

from app.registry.clock import now
from app.registry.database import Database
from app.registry.experiments import ROLES, Role
from app.registry.tables import signals

MINUTE_S = 60
KEPT_S = 86_400  # the longest window of a rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """Sums over searches."""

    requests: int = 0
    errors: int = 0
    empty: int = 0  # whose score threshold left no hit
    timed: int = 0  # of one query that was not remembered: the others' times tell nothing of the encoder
    seconds: float = 0.0  # that encoding the timed ones took
    seconds_squared: float = 0.0
    scored: int = 0  # queries with a hit that an encoder alone ranked
    score: float = 0.0  # of their best hits
    score_squared: float = 0.0

    def __add__(self, other: "Signal") -> "Signal":
        return Signal(**{name: getattr(self, name) + getattr(other, name) for name in NAMES})


NAMES = tuple(Signal.__slots__)


class Signals:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, seen: Mapping[tuple[int, Role], Signal]) -> None:
        """Of this minute, by generation and role. What no rule looks back on any more goes, whosever it was."""
        with self._database.write() as connection:
            minute = int(connection.execute(select(now())).scalar_one() // MINUTE_S)
            connection.execute(delete(signals).where(signals.c.minute < minute - KEPT_S // MINUTE_S))
            for (generation, role), more in seen.items():
                key = {"generation": generation, "role": role, "minute": minute}
                these = [signals.c[name] == value for name, value in key.items()]
                sums = {name: signals.c[name] + getattr(more, name) for name in NAMES}
                if not connection.execute(update(signals).where(*these).values(sums)).rowcount:
                    connection.execute(insert(signals).values(key | {name: getattr(more, name) for name in NAMES}))

    def of(self, generation: int, window_s: float) -> dict[Role, Signal]:
        """Of the last `window_s`, by whole minutes."""
        oldest = (self._database.now() - window_s) // MINUTE_S
        sums = [func.sum(signals.c[name]).label(name) for name in NAMES]
        query = select(signals.c.role, *sums).where(signals.c.generation == generation, signals.c.minute >= oldest)
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(signals.c.role)).mappings().all()
        found = {row["role"]: Signal(**{name: row[name] for name in NAMES}) for row in rows}
        return {role: found.get(role, Signal()) for role in ROLES}

    def forget(self, generation: int) -> None:
        with self._database.write() as connection:
            connection.execute(delete(signals).where(signals.c.generation == generation))
