"""One SQLAlchemy engine on SQLite in WAL mode: readers never wait, writers queue on a busy timeout.

Every write is one `BEGIN IMMEDIATE` transaction, so that two processes (service and trainer) that read and
then write can never act on the same stale picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from app.errors import Conflict, Unavailable

BUSY_TIMEOUT_S = 30
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Connections to the registry database at `path`, migrated to the newest schema when opened.

    Raises `Conflict` when the database was written by a newer release, `Unavailable` when it does not answer.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.engine = _sqlite_engine(path)
        self._migrate()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with (
            _as_unavailable(),
            self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with _as_unavailable(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def close(self) -> None:
        self.engine.dispose()

    def _migrate(self) -> None:
        config = migration_config()
        known = ScriptDirectory.from_config(config)
        with self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in {script.revision for script in known.walk_revisions()}:
            raise Conflict(
                f"The registry at {self.path} has schema revision {found}, this release knows up to "
                f"{known.get_current_head()}: start the newer release that wrote it."
            )
        if found == known.get_current_head():
            return
        # The trainer opens the same file: whoever comes first migrates, the other waits and finds it done.
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def migration_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection, _record) -> None:  # type: ignore[no-untyped-def]  # a DBAPI connection has no type
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable(
            f"The registry database does not answer ({error.orig}): check disk space and who uses it."
        ) from error
