"""The database's clock, in seconds since 1970: the one clock that all processes on a registry share."""

import time
from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

SQLITE_FUNCTION = "adiabat_now"  # SQLite's own counts milliseconds: two rows would be of the same age


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
