"""Wakes who waits for something new in the registry: at once by PostgreSQL's NOTIFY, else a moment later."""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from app.registry.database import Database
from app.registry.engines import POSTGRESQL, connect_arguments

if TYPE_CHECKING:
    import psycopg

CHANNEL = "adiabat_generation"
POLL_S = 0.25  # of a database that tells nobody anything, and of one that is away


def ring(connection: Connection) -> None:
    """Heard when the transaction of `connection` is committed, and only then."""
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")


class Bell:
    """One to a thread that waits. It has a connection of its own, made anew when it broke."""

    def __init__(self, database: Database, stop: threading.Event) -> None:
        self._database = database
        self._stop = stop
        self._line: psycopg.Connection[Any] | None = None

    def wait(self, seconds: float) -> None:
        """Until something may be new, at most so long; the caller looks for itself what it is."""
        if not self._database.on_postgresql:
            self._stop.wait(min(seconds, POLL_S))
            return
        import psycopg

        try:
            line = self._open()
            next(line.notifies(timeout=seconds, stop_after=1), None)
        except psycopg.Error:
            self.close()
            self._stop.wait(POLL_S)

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with suppress(Exception):
                line.close()

    def _open(self) -> "psycopg.Connection[Any]":
        import psycopg

        if self._line is None:
            url = self._database.url
            address = url.set(drivername=POSTGRESQL).render_as_string(hide_password=False)
            arguments = connect_arguments(url, self._database.patience_s)
            self._line = psycopg.connect(address, autocommit=True, **arguments)
            self._line.execute(f"LISTEN {CHANNEL}")
        return self._line
