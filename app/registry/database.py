"""The registry's database: SQLite in WAL mode, where readers never wait, or PostgreSQL.

Every write is one transaction, and writers come one after another (`BEGIN IMMEDIATE`; an advisory lock on PostgreSQL),
so that processes that read and then write can never act on the same stale picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Insert, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import BadInput, Conflict, Unavailable
from app.registry.clock import now
from app.registry.engines import POSTGRESQL, engine_at, read_url

MIGRATIONS = Path(__file__).parent / "migrations"
WRITERS = 0x41444941424154  # "ADIABAT": the advisory lock that writers take, whatever else is in the database


class Database:
    """Connections to the registry at a file of SQLite or an address, migrated to the newest schema when opened.

    Raises `Conflict` when the database was written by a newer release, `Unavailable` when it does not answer.
    """

    def __init__(self, at: Path | str) -> None:
        self.url = URL.create("sqlite", database=str(at)) if isinstance(at, Path) else read_url(at)
        self.engine = engine_at(self.url)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """For people: without a password."""
        return str(self.url.database) if not self.on_postgresql else self.url.render_as_string(hide_password=True)

    @property
    def on_postgresql(self) -> bool:
        return self.engine.dialect.name == POSTGRESQL

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with (
            _in_our_words(),
            self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            yield connection

    @contextmanager
    def write(self, *, shared: bool = False) -> Iterator[Connection]:
        """A transaction; on PostgreSQL `shared` ones run beside others: for what locks the rows it looks at."""
        with _in_our_words(), self.engine.connect() as connection:
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
        insert = postgresql.insert if self.on_postgresql else sqlite.insert
        return insert(table).values(key | values).on_conflict_do_update(index_elements=[*key], set_=values)

    def now(self) -> float:
        """Seconds since 1970 by the database's clock."""
        with self.read() as connection:
            return connection.execute(select(now())).scalar_one()

    def close(self) -> None:
        self.engine.dispose()

    def _migrate(self) -> None:
        config = migration_config()
        known = known_revisions()
        with self.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in known:
            raise Conflict(
                f"The registry at {self.name} has schema revision {found}, this release knows up to "
                f"{known[0]}: start the newer release that wrote it."
            )
        if found == known[0]:
            return
        # Other processes open the same database: whoever comes first migrates, the others wait and find it done.
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def migration_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def known_revisions() -> list[str]:
    """Of the schema, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(migration_config()).walk_revisions()]


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise BadInput(f"The registry cannot keep a text that holds the character NUL ({error.orig}).") from error
    except (OperationalError, InterfaceError, InternalError) as error:
        raise _unavailable(error) from error
    except PoolTimeout as error:
        raise Unavailable("Too much is asked of the registry database at once; repeat the call.") from error


def _unavailable(error: DBAPIError) -> Unavailable:
    said = " ".join(str(error.orig).split())
    return Unavailable(f"The registry database does not answer ({said}): check its disk space, and that it runs.")
