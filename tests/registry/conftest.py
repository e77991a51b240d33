"""Every test of the registry on both databases: a file of SQLite, and a real PostgreSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registry import Registry
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
