"""Every test of the registry on both databases: a file of SQLite, and a real PostgreSQL server."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from app.registry import Registry
from app.registry.database import migration_config
from app.registry.engines import engine_at, read_url
from tests.postgres import Server

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(params=DATABASES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where a registry can be opened; nothing is there yet."""
    if request.param == "sqlite":
        yield tmp_path / "registry.db"
        return
    server: Server = request.getfixturevalue("postgres")
    url = server.fresh()
    yield url
    server.drop(url)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """As `empty_database`, but made from a copy on PostgreSQL: it is quicker than migrating anew."""
    if request.param == "sqlite":
        yield tmp_path / "registry.db"
        return
    server: Server = request.getfixturevalue("postgres")
    url = server.migrated()
    yield url
    server.drop(url)


@pytest.fixture
def registry(database: Path | str) -> Iterator[Registry]:
    opened = Registry(database)
    yield opened
    opened.close()


def registry_of(empty_database: Path | str, revision: str, statements: Sequence[str]) -> None:
    """What an earlier release left: its schema, and rows put in by `statements`."""
    at = f"sqlite:///{empty_database}" if isinstance(empty_database, Path) else empty_database
    engine = engine_at(read_url(at))
    with engine.begin() as connection:
        config = migration_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
