"""How each database is spoken to. SQLite: a file in WAL mode. PostgreSQL: psycopg 3, connections that are checked."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from app.errors import BadInput, Unavailable
from app.registry.clock import give_clock

PATIENCE_S = 30.0  # of a trainer or a command with a database whose lock another one holds
SERVICE_PATIENCE_S = 5.0  # of the service: whoever waits for its answer is told to come again
CONNECT_TIMEOUT_S = 5
POSTGRESQL = "postgresql"
DRIVER = "postgresql+psycopg"
# A writer that was stopped in the middle of a transaction must not hold up the others for longer.
IDLE_WRITER_S = 60


def read_url(given: str) -> URL:
    """Raises `BadInput` for anything but an address of PostgreSQL or a file of SQLite; it repeats no password."""
    try:
        url = make_url(given)
    except ArgumentError:
        raise BadInput(f"ADIABAT_REGISTRY_URL is no address of a database: {_EXPECTED}.") from None
    if url.drivername in ("postgres", POSTGRESQL, DRIVER):
        return url.set(drivername=DRIVER)
    if url.drivername == "sqlite" and url.database:
        return url
    raise BadInput(f"ADIABAT_REGISTRY_URL names {url.drivername!r}: {_EXPECTED}.")


_EXPECTED = "postgresql://USER:PASSWORD@HOST:5432/DATABASE is expected, or sqlite:////path/to/registry.db"


def bare(url: URL) -> str:
    """Where it is, for people: no user, and nothing of what follows '?', which may hold a password too."""
    if url.drivername == "sqlite":
        return str(url.database)
    where = {name: value for name, value in url.query.items() if name in ("host", "port")}
    return URL.create(POSTGRESQL, host=url.host, port=url.port, database=url.database, query=where).render_as_string()


def engine_at(url: URL, patience_s: float = PATIENCE_S) -> Engine:
    """Nothing is opened yet. Raises `Unavailable` where the driver is missing."""
    if url.drivername == DRIVER:
        return _postgresql(url, patience_s)
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    return _sqlite(url, patience_s)


def _sqlite(url: URL, patience_s: float) -> Engine:
    engine = create_engine(url, connect_args={"timeout": patience_s})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        give_clock(connection)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _postgresql(url: URL, patience_s: float) -> Engine:
    if find_spec("psycopg") is None:
        raise Unavailable(
            "ADIABAT_REGISTRY_URL names a PostgreSQL database and psycopg is not installed: pip install "
            "'adiabat[postgres]'."
        )
    return create_engine(
        url,
        connect_args=connect_arguments(url, patience_s),
        pool_pre_ping=True,  # after a restart of the server every connection of before is dead
        pool_size=5,
        max_overflow=20,
        pool_timeout=patience_s,
    )


def connect_arguments(url: URL, patience_s: float) -> dict[str, Any]:
    """What the address says itself counts before these."""
    wanted = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "adiabat",
        # A server that went without a word is noticed within a quarter of a minute, or when patience ends.
        "keepalives_idle": 5,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": min(15_000, round(patience_s * 1_000)),
        "options": f"-c lock_timeout={round(patience_s * 1_000)} "
        f"-c idle_in_transaction_session_timeout={IDLE_WRITER_S}s",
    }
    return {name: value for name, value in wanted.items() if name not in url.query}
