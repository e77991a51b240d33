"""The database's clock, in seconds since 1970: the one clock that all processes on a registry share."""

import time
from typing import Any

from sqlalchemy import Connection, Float, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

SQLITE_FUNCTION = "adiabat_now"  # SQLite's own counts milliseconds: two rows would be of the same age
MAX_ROUND_TRIP_S = 2.0  # an answer that took longer tells too little; likewise where somebody set a clock meanwhile


def give_clock(connection: Any) -> None:
    """Every connection to SQLite needs it. All its processes are on one machine, whose clock this is."""
    connection.create_function(SQLITE_FUNCTION, 0, time.time)


class now(FunctionElement[float]):  # noqa: N801  # it is written among the functions of SQL
    """This very moment, not the one at which the transaction began: who waited for a lock writes when it got it."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite(_element: now, _compiler: Any, **_: Any) -> str:
    return f"{SQLITE_FUNCTION}()"


@compiles(now, "postgresql")
def _postgresql(_element: now, _compiler: Any, **_: Any) -> str:
    return "extract(epoch FROM clock_timestamp())::double precision"


def ahead_s(connection: Connection) -> float | None:
    """By how many seconds this machine's clock is ahead of the database's, give or take half of the round trip.

    None where that took too long to tell.
    """
    asked = time.time()
    theirs = connection.execute(select(now())).scalar_one()
    answered = time.time()
    if not 0 <= answered - asked <= MAX_ROUND_TRIP_S:
        return None
    return (asked + answered) / 2 - theirs
