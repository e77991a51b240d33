"""Parts of the service that are away for a while."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.client import ApiError
from app.registry import engines
from app.settings import Settings
from tests.conftest import running
from tests.service import encoders

LOCKER = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(registry: Path) -> Iterator[None]:
    """Another process holds an exclusive transaction on the registry."""
    command = [sys.executable, "-c", LOCKER, str(registry)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"locked\n"
        yield
        holder.stdin.close()


def test_while_the_registry_is_locked_searches_go_on_changes_get_503_and_afterwards_all_is_well(
    settings: Settings, tiny: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0.5)
    folder = str(encoders.near(tiny, sources / "bees"))
    with running(settings) as service:
        client = service.client
        client.upsert_passages([{"id": "p", "text": "water pump"}])
        client.register_encoder("bees", path=folder)
        with locked(settings.registry_path):
            for change in (
                lambda: client.activate("bees"),
                lambda: client.register_encoder("wasps", path=folder),
                lambda: client.delete_encoder("bees@1"),
            ):
                with pytest.raises(ApiError, match="registry") as refused:
                    change()
                assert (refused.value.status, refused.value.slug) == (503, "unavailable")
                assert refused.value.retry_after_s
            assert client.search("water").encoder.name == "base"
            assert client.search("water", encoder="bees").encoder.name == "bees"
            client.upsert_passages([{"id": "q", "text": "oil filter"}])
            assert client.ready().status == "ready"
        assert client.activate("bees").encoder.generation == 2
        assert client.count_passages() == 2
    with sqlite3.connect(settings.registry_path) as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
