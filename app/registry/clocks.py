"""Whose clock differs from the database's, by the last word of each service and trainer that lives.

Nothing here depends on clocks: who holds a job or lives is told by the database's alone. What a host does by its own
clock is what this warns of.
"""

import logging

from sqlalchemy import func, literal, select, union_all

from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import instances, workers

log = logging.getLogger("adiabat.clock")

MAX_AHEAD_S = 5.0  # either way; half a round trip, of at most 2 s, is no reason to say anything
SEEN_WITHIN_S = 30.0  # a sign of life comes every second
MEND = (
    "Have both set by NTP: times in its log, ends of keys and sessions, quotas and signatures of webhooks go by it; "
    "switches and jobs do not."
)


class Clocks:
    def __init__(self, database: Database) -> None:
        self._database = database

    def ahead_s(self) -> dict[str, float]:
        """Seconds by "service NAME" and "trainer NAME"; those that could not tell are missing."""
        tables = (("service ", instances), ("trainer ", workers))
        told = [
            select((literal(kind) + table.c.name).label("whose"), table.c.clock_ahead_s).where(
                func.abs(now() - table.c.seen_at) < SEEN_WITHIN_S, table.c.clock_ahead_s.is_not(None)
            )
            for kind, table in tables
        ]
        with self._database.read() as connection:
            return {row.whose: row.clock_ahead_s for row in connection.execute(union_all(*told))}

    def differing(self) -> list[str]:
        """A sentence for each that is too far off."""
        found = sorted(self.ahead_s().items())
        return [f"{differs(f'the {whose}', ahead_s)} {MEND}" for whose, ahead_s in found if is_far(ahead_s)]


class ClockWatch:
    """Of one process: a line in the log when its clock begins to differ, and one when it agrees again."""

    def __init__(self) -> None:
        self._differs = False

    def look(self, ahead_s: float | None) -> None:
        if ahead_s is None:
            return
        # Back only at half of it: a clock that drifts around the bound is told once.
        if not self._differs and is_far(ahead_s):
            self._differs = True
            log.warning("%s %s", differs("this machine", ahead_s), MEND)
        elif self._differs and abs(ahead_s) < MAX_AHEAD_S / 2:
            self._differs = False
            log.info("The clock of this machine agrees with the registry database's again, to %.1f s.", abs(ahead_s))


def is_far(ahead_s: float) -> bool:
    return abs(ahead_s) > MAX_AHEAD_S


def differs(whose: str, ahead_s: float) -> str:
    where = "ahead of" if ahead_s > 0 else "behind"
    return f"The clock of {whose} is {abs(ahead_s):.1f} s {where} the registry database's."
