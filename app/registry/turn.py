"""One after another among services that see one database and not each other's disks."""

from contextlib import AbstractContextManager, ExitStack

from app.lock import FileLock
from app.registry.database import Database

DATASETS = 0x4441544153  # "DATAS": an advisory lock, beside the one of writers


class Turn(AbstractContextManager[None]):
    """`local` keeps apart those of this machine, an advisory lock on PostgreSQL all of them.

    A thread may take it again. It goes with its connection: whoever dies has given it back.
    """

    def __init__(self, database: Database, local: FileLock) -> None:
        self._database = database
        self._local = local
        self._held: list[ExitStack] = []

    def __enter__(self) -> None:
        """Raises `Unavailable` where another one does not let go."""
        with ExitStack() as stack:
            stack.enter_context(self._local)
            if not self._held and self._database.on_postgresql:
                connection = stack.enter_context(self._database.read())
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({DATASETS})")
                stack.callback(connection.exec_driver_sql, f"SELECT pg_advisory_unlock({DATASETS})")
            self._held.append(stack.pop_all())

    def __exit__(self, *_: object) -> None:
        self._held.pop().close()
