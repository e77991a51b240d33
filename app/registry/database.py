"""The registry's database: SQLite in WAL mode, where readers never wait, or PostgreSQL.

Every write is one transaction, and writers come one after another (`BEGIN IMMEDIATE`; an advisory lock on PostgreSQL),
so that processes that read and then write can never act on the same stale picture.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Insert, Table, inspect, select, text
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import BadInput, Conflict, Unavailable
from app.registry.clock import now
from app.registry.engines import PATIENCE_S, POSTGRESQL, bare, engine_at, read_url

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
REVISIONS = "alembic_version"  # Alembic itself is imported where it migrates: it takes a third of a second
PRIMARY = 0xFF  # of SQLite's codes; the rest tells more of the same
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
MEND_SERVER = "check that it runs and can be reached, its disk space, and ADIABAT_REGISTRY_URL"
MEND_FILE = "another process may hold it for long; else check its disk's space, and that this user may write there"
WRITERS = 0x41444941424154  # "ADIABAT": the advisory lock that writers take, whatever else is in the database


class Database:
    """Connections to the registry at a file of SQLite or an address, migrated to the newest schema when opened.

    Every call waits at most `patience_s` for a lock that another process holds. Raises `Conflict` when the database was
    written by a newer release, `Unavailable` when it does not answer or is damaged.
    """

    def __init__(self, at: Path | str, patience_s: float = PATIENCE_S) -> None:
        self.url = URL.create("sqlite", database=str(at)) if isinstance(at, Path) else read_url(at)
        self.patience_s = patience_s
        self.engine = engine_at(self.url, patience_s)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """For people."""
        return bare(self.url)

    @property
    def on_postgresql(self) -> bool:
        return self.engine.dialect.name == POSTGRESQL

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with (
            self._in_our_words(),
            self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            yield connection

    @contextmanager
    def write(self, *, shared: bool = False) -> Iterator[Connection]:
        """A transaction; on PostgreSQL `shared` ones run beside others: for what locks the rows it looks at."""
        with self._in_our_words(), self.engine.connect() as connection:
            if not self.on_postgresql:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif not shared:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def upsert(self, table: Table, key: dict[str, Any], values: dict[str, Any]) -> Insert:
        """The row with this key gets these values, whether it is there or not."""
        insert = import_module(f"sqlalchemy.dialects.{self.engine.dialect.name}").insert
        made: Insert = insert(table).values(key | values).on_conflict_do_update(index_elements=[*key], set_=values)
        return made

    def now(self) -> float:
        """Seconds since 1970 by the database's clock."""
        with self.read() as connection:
            return connection.execute(select(now())).scalar_one()

    def close(self) -> None:
        self.engine.dispose()

    def _migrate(self) -> None:
        known = known_revisions()
        with self.read() as connection:
            found = revision_of(connection)
        if found is not None and found not in known:
            raise Conflict(
                f"The registry at {self.name} has schema revision {found}, this release knows up to "
                f"{known[0]}: start the newer release that wrote it."
            )
        if found == known[0]:
            return
        from alembic import command

        config = migration_config()
        # Other processes open the same database: whoever comes first migrates, the others wait and find it done.
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise BadInput(f"The registry cannot keep a text that holds the character NUL ({error.orig}).") from error
        except (OperationalError, InterfaceError, InternalError) as error:
            mend = MEND_SERVER if self.on_postgresql else MEND_FILE
            raise Unavailable(f"The registry database does not answer ({_said(error)}): {mend}.") from error
        except PoolTimeout as error:
            raise Unavailable("Too much is asked of the registry database at once; repeat the call.") from error
        except DatabaseError as error:  # what all of them are; SQLite has no other for a damaged file
            if getattr(error.orig, "sqlite_errorcode", 0) & PRIMARY not in DAMAGED:
                raise
            raise Unavailable(
                f"The registry in {self.name} is damaged ({_said(error)}): stop the service and restore a backup "
                "('adiabat restore FILE'); 'adiabat doctor' looks at all of it."
            ) from error


def migration_config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def known_revisions() -> list[str]:
    """Of the schema, the newest first; each migration's file begins with its own."""
    return sorted((path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")), reverse=True)


def revision_of(connection: Connection) -> str | None:
    """The schema's in this database, None where there is none yet."""
    if not inspect(connection).has_table(REVISIONS):
        return None
    return connection.execute(text(f"SELECT version_num FROM {REVISIONS}")).scalar()


def _said(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
