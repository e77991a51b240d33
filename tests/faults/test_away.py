"""Parts of the service that are away for a while."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from app import assembly
from app.client import AdiabatClient, ApiError
from app.encoders import replicas
from app.registry import Registry
from app.registry.copying import copy_registry
from app.registry.engines import CONNECT_TIMEOUT_S, SERVICE_PATIENCE_S
from app.settings import Settings
from tests.conftest import Service, free_port, running, start_qdrant, wait_until
from tests.postgres import PostgresServer, kill_server, own_server, start_server
from tests.service import encoders
from tests.service.test_process import start_and_fail

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
    monkeypatch.setattr(assembly, "SERVICE_PATIENCE_S", 0.5)
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
                asked = time.monotonic()
                with pytest.raises(ApiError, match="registry") as refused:
                    change()
                assert (refused.value.status, refused.value.slug) == (503, "unavailable")
                assert refused.value.retry_after_s
                assert time.monotonic() - asked < 5
            assert client.search("water").encoder.name == "base"
            assert client.search("water", encoder="bees").encoder.name == "bees"
            client.upsert_passages([{"id": "q", "text": "oil filter"}])
            assert client.ready().status == "ready"
        assert client.activate("bees").encoder.generation == 2
        assert client.count_passages() == 2
    with sqlite3.connect(settings.registry_path) as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_call_is_told_to_come_again_before_its_client_gives_up() -> None:
    assert SERVICE_PATIENCE_S <= 5


def changes(client: AdiabatClient) -> dict[str, Callable[[], object]]:
    return {
        "switch": lambda: client.activate("bees"),
        "rollback": client.rollback,
        "delete": lambda: client.delete_encoder("wasps@1"),
        "judge": lambda: client.judge("water", "p", 3),
    }


def assert_refused(change: Callable[[], object], match: str) -> None:
    with pytest.raises(ApiError, match=match) as refused:
        change()
    assert (refused.value.status, refused.value.slug) == (503, "unavailable")
    assert refused.value.retry_after_s


@contextmanager
def on_postgres(settings: Settings, tiny: Path, server: PostgresServer) -> Iterator[Service]:
    """A service whose registry is there, with two encoders beside the base and a passage."""
    url = server.get_uri()
    source, target = Registry(settings.registry_path), Registry(url)
    copy_registry(source.database, target.database)
    source.close()
    target.close()
    with running(settings.model_copy(update={"registry_url": url})) as service:
        for seed, name in enumerate(("bees", "wasps"), start=1):
            folder = encoders.near(tiny, settings.source_dirs[0] / name, seed=seed)
            service.client.register_encoder(name, path=str(folder))
            service.client.activate(name)
        service.client.upsert_passages([{"id": "p", "text": "water pump"}])
        yield service


@pytest.mark.parametrize("away_s", [1, pytest.param(30, marks=pytest.mark.nightly)])
def test_while_the_registry_is_down_searches_go_on_changes_get_503_and_afterwards_all_is_well(
    settings: Settings, tiny: Path, away_s: float
) -> None:
    with own_server() as server, on_postgres(settings, tiny, server) as service:
        client = service.client
        kill_server(server)
        until = time.monotonic() + away_s
        while True:
            assert client.search("water").encoder.name == "wasps"
            assert client.search("water", encoder="bees@1").encoder.name == "bees"  # it is in memory
            for change in changes(client).values():
                assert_refused(change, "registry")
            ready = client.ready()
            assert ready.status == "ready"
            assert "registry does not answer" in ready.trainer
            client.upsert_passages([{"id": "q", "text": "oil filter"}])
            if time.monotonic() > until:
                break
        wait_until(lambda: any("registry does not answer" in note for note in client.ready().notes))
        start_server(server)
        wait_until(lambda: client.ready().notes == [])
        assert client.activate("bees").encoder.generation == 4
        assert client.count_passages() == 2
        assert [each.generation for each in client.history()] == [4, 3, 2, 1]


def test_a_registry_that_hangs_is_no_pause_of_the_service(
    settings: Settings, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections and answers none, as one whose disk or machine stands still."""
    lease_s = 2.0
    monkeypatch.setattr(replicas, "LEASE_S", lease_s)
    with own_server() as server, on_postgres(settings, tiny, server) as service:
        postmaster = psutil.Process(server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for each in processes:
            each.send_signal(signal.SIGSTOP)
        try:
            until, slowest_s = time.monotonic() + 3 * lease_s, 0.0
            wait_until(lambda: not service.parts.replicas.registry_answers())
            asked = time.monotonic()
            ready = service.client.ready()
            assert (ready.status, ready.trainer) == ("ready", "unknown: the registry does not answer")
            figures = httpx.get(f"{service.url}/metrics", trust_env=False).text
            assert 'adiabat_part_up{part="registry"} 0.0' in figures
            assert time.monotonic() - asked < lease_s  # a probe that waits takes the service for dead
            while time.monotonic() < until:
                asked = time.monotonic()
                assert service.client.search("water").encoder.name == "wasps"
                slowest_s = max(slowest_s, time.monotonic() - asked)
            assert slowest_s < CONNECT_TIMEOUT_S + 1  # whoever comes when keys are to be looked up anew
            assert "this replica may miss a switch" in str(service.parts.replicas.note())
            assert not service.parts.replicas.is_paused()
        finally:
            for each in processes:
                each.send_signal(signal.SIGCONT)
        wait_until(lambda: service.parts.replicas.note() is None)
        assert service.client.activate("bees").encoder.generation == 4


def test_while_qdrant_is_down_searches_get_503_and_when_it_is_back_they_are_answered(
    settings: Settings, tiny: Path, sources: Path, tmp_path: Path
) -> None:
    port, folder = free_port(), str(tmp_path / "qdrant")
    qdrant = start_qdrant(port, folder)
    grown = settings.model_copy(update={"qdrant_url": f"http://127.0.0.1:{port}"})
    try:
        with running(grown) as service:
            client = service.client
            client.upsert_passages([{"id": "p", "text": "water pump"}])
            client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees")))
            qdrant.kill()
            qdrant.wait()
            for call in (
                lambda: client.search("water"),
                lambda: client.upsert_passages([{"id": "q", "text": "oil filter"}]),
                lambda: client.passages(),
                lambda: client.delete_passages(["p"]),
            ):
                assert_refused(call, f"Qdrant server at http://127.0.0.1:{port} does not answer")
            ready = httpx.get(f"{client.url}/health/ready", trust_env=False)
            assert (ready.status_code, ready.json()["status"]) == (503, "not-ready")
            assert "Qdrant" in ready.json()["notes"][0]
            assert httpx.get(f"{client.url}/health/live", trust_env=False).status_code == 200
            assert client.activate("bees").encoder.generation == 2  # nothing of it is in Qdrant
            figures = httpx.get(f"{client.url}/metrics", trust_env=False).text
            assert 'adiabat_part_up{part="store"} 0.0' in figures
            said = start_and_fail(grown.model_copy(update={"data_dir": tmp_path / "elsewhere"}))
            assert "Qdrant server" in said
            qdrant = start_qdrant(port, folder)
            assert [hit.id for hit in client.search("water").hits] == ["p"]
            assert client.ready().status == "ready"
            client.upsert_passages([{"id": "q", "text": "oil filter"}])
            assert client.count_passages() == 2
    finally:
        qdrant.kill()
        qdrant.wait()
