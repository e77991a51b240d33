"""`adiabat backup` and `restore` with real processes: the same answers afterwards, and nothing by half."""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.backup.archive import ABOUT, SUMS
from app.backup.restoring import UNFINISHED, restore
from app.backup.taking import taken, taken_without_service
from app.backup.verifying import verify_archive, verify_folder
from app.client import AdiabatClient, ApiError, Unreachable
from app.errors import Conflict, DataDirLocked, NotFound
from app.registry import JobStatus, Registry
from app.settings import Settings
from tests.conftest import environment, process, running, wait_until
from tests.service import encoders
from tests.service.backups import PASSAGES, Saved, adiabat, answers

KILLED_AFTER_RENAME = """
import os, signal, sys
from pathlib import Path
from app.cli import main
renamed, rename = [], Path.rename
def deadly(path, target):
    rename(path, target)
    renamed.append(path)
    if len(renamed) == int(os.environ["ADIABAT_TEST_RENAMES"]):
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = deadly
main()
"""


@pytest.fixture(autouse=True)
def _no_archives_left(tmp_path: Path) -> Iterator[None]:
    """Each is a hundred megabytes."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_restored_service_answers_as_the_one_that_was_backed_up(saved: Saved, elsewhere: Settings) -> None:
    assert saved.file.stat().st_mode & 0o777 == 0o600
    assert "members are as their checksums say" in adiabat(elsewhere, "verify", str(saved.file))
    words = ("restore", str(saved.file), "--data-dir", str(elsewhere.data_dir))
    assert "restored to" in adiabat(elsewhere, *words)
    said = adiabat(elsewhere, "verify", str(elsewhere.data_dir))
    assert f"{PASSAGES - 1} with texts, metadata and vectors as they were written" in said
    assert "16 texts were embedded again: the same vectors" in said
    registry = Registry(elsewhere.registry_path)
    assert len(registry.jobs.with_status(JobStatus.QUEUED)) == 1  # its training set is made again
    registry.close()
    with process(elsewhere, "--no-trainer") as (_, client):
        assert answers(client) == saved.answers
        assert client.upsert_passages([{"id": "p7", "text": "water pump 7"}]).embedded == 0
        assert client.rollback().encoder.generation == 5


def test_the_file_is_plain_tar_with_checksums_that_anybody_can_check(saved: Saved, tmp_path: Path) -> None:
    with tarfile.open(saved.file) as archive:
        archive.extractall(tmp_path, filter="data")
    checked = subprocess.run(["sha256sum", "--quiet", "-c", SUMS], cwd=tmp_path, check=False)
    assert checked.returncode == 0
    assert json.loads((tmp_path / ABOUT).read_text())["passages"] == PASSAGES - 1
    secret = (saved.settings.data_dir / "session.secret").read_text()
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_without_a_service_the_folder_is_backed_up_and_with_one_it_is_refused(
    saved: Saved, elsewhere: Settings, tmp_path: Path
) -> None:
    restore(saved.file, elsewhere.data_dir)
    file, other, folder = tmp_path / "again.tar", tmp_path / "other.tar", str(elsewhere.data_dir)
    adiabat(elsewhere, "backup", str(file), "--data-dir", folder)
    assert "exists, and a backup never replaces one" in adiabat(elsewhere, "backup", str(file), code=1)
    with running(elsewhere) as service:
        assert "is in use by process" in adiabat(elsewhere, "backup", str(other), "--data-dir", folder, code=1)
        with pytest.raises(DataDirLocked):
            list(verify_folder(elsewhere))
        before = answers(service.client)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.tar", "restored"]
    again = elsewhere.model_copy(update={"data_dir": tmp_path / "again"})
    restore(file, again.data_dir)
    with running(again) as service:
        assert answers(service.client) == before
    nowhere = elsewhere.model_copy(update={"data_dir": tmp_path / "nowhere"})
    with pytest.raises(NotFound, match="nothing to back up"), taken_without_service(nowhere):
        pass
    with pytest.raises(NotFound, match="no registry"):
        list(verify_folder(nowhere))


def test_a_backup_under_load_is_of_one_moment_and_searches_go_on(
    saved: Saved, elsewhere: Settings, tiny: Path, tmp_path: Path
) -> None:
    """Passages come one after another, encoders come, are switched to and deleted: a backup has no gap in either."""
    restore(saved.file, elsewhere.data_dir)
    sources = tmp_path / "sources"
    sources.mkdir()
    settings = elsewhere.model_copy(update={"source_dirs": (sources,)})
    done, acknowledged = threading.Event(), [0]
    searched: list[str] = []

    def until_done(step: Callable[[AdiabatClient, int], None], url: str) -> None:
        with AdiabatClient(url, retries=0) as client:
            number = 0
            while not done.is_set():
                step(client, number)
                number += 1

    def ingest(client: AdiabatClient, number: int) -> None:
        client.upsert_passages([{"id": f"w{number}-{n}", "text": f"wasp {number} {n}"} for n in range(8)])
        acknowledged[0] = number + 1

    def come_and_go(client: AdiabatClient, number: int) -> None:
        folder = encoders.near(tiny, sources / f"e{number}", seed=number + 9)
        client.register_encoder(f"e{number}", path=str(folder), force=True)
        client.activate(f"e{number}")
        client.activate("base")
        client.activate("bees")
        client.delete_encoder(f"e{number}@1")

    def search(client: AdiabatClient, _: int) -> None:
        searched.append(client.search("wasp").encoder.name)

    with process(settings, "--no-trainer") as (_, client):
        threads = [
            threading.Thread(target=until_done, args=(step, client.url)) for step in (ingest, come_and_go, search)
        ]
        for thread in threads:
            thread.start()
        files, bounds = [tmp_path / f"{n}.tar" for n in range(2)], []
        for file in files:
            wait_until(lambda: acknowledged[0] > (bounds[-1][1] if bounds else 0))
            first, before = acknowledged[0], len(searched)
            client.backup(file)
            bounds.append((first, acknowledged[0] + 1))
            assert len(searched) > before
        done.set()
        for thread in threads:
            thread.join()
    for file, (at_least, at_most) in zip(files, bounds, strict=True):
        assert {finding.level for finding in verify_archive(file, settings, lambda *_: None)} == {"ok"}
        restored = settings.model_copy(update={"data_dir": tmp_path / file.stem})
        restore(file, restored.data_dir)
        with running(restored) as service:
            count = service.client.count_passages() - (PASSAGES - 1)
            batches = -(-count // 8)
            assert at_least <= batches <= at_most
            there = {f"w{batch}-{n}" for batch in range(batches) for n in range(8)}
            found = {each.passage.id for each in service.parts.store.fetch(sorted(there))}
            assert found >= {id for id in there if not id.startswith(f"w{batches - 1}-")}
            active = service.client.active_encoder()
            assert active.fallback_reason is None
            assert {each.state for each in service.client.encoders()} <= {"ready", "deleted"}


def test_one_backup_at_a_time_and_one_that_is_given_up_leaves_nothing(saved: Saved, elsewhere: Settings) -> None:
    restore(saved.file, elsewhere.data_dir)
    with running(elsewhere) as service:
        with httpx.stream("POST", f"{service.url}/backups", trust_env=False) as first:
            assert first.status_code == 200
            with pytest.raises(ApiError) as caught:
                service.client.backup(elsewhere.data_dir.parent / "second.tar")
            assert (caught.value.status, caught.value.slug) == (429, "overloaded")
        wait_until(lambda: list(elsewhere.artifacts_dir.glob(".staging-*")) == [])
        service.client.backup(elsewhere.data_dir.parent / "third.tar")


def test_a_service_that_is_killed_in_a_backup_leaves_no_file_and_goes_on_at_the_next_start(
    saved: Saved, elsewhere: Settings, tmp_path: Path
) -> None:
    restore(saved.file, elsewhere.data_dir)
    with process(elsewhere, "--no-trainer") as (child, client):

        def kill(done: int, total: int) -> None:
            if done > total / 2:
                child.send_signal(signal.SIGKILL)

        with pytest.raises(Unreachable):
            client.backup(tmp_path / "half.tar", kill)
    assert "is no backup" in adiabat(elsewhere, "verify", str(tmp_path / "half.tar"), code=1).replace(
        "damaged", "is no backup"
    )
    assert "does not answer" in adiabat(elsewhere, "backup", str(tmp_path / "none.tar"), "--url", client.url, code=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.tar", "restored", "service.log"]
    with running(elsewhere) as service:
        assert answers(service.client) == saved.answers
        assert list(elsewhere.artifacts_dir.glob(".staging-*")) == []


@pytest.mark.parametrize(
    "renames", [pytest.param(1, marks=pytest.mark.nightly), 2, pytest.param(3, marks=pytest.mark.nightly)]
)
def test_a_restore_killed_between_its_parts_serves_nothing_and_is_repeated(
    saved: Saved, elsewhere: Settings, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADIABAT_TEST_RENAMES", str(renames))
    words = ("restore", str(saved.file), "--data-dir", str(elsewhere.data_dir))
    adiabat(elsewhere, *words, code=-signal.SIGKILL, program=("-c", KILLED_AFTER_RENAME))
    assert (elsewhere.data_dir / UNFINISHED).exists()
    assert "repeat 'adiabat restore'" in adiabat(elsewhere, "serve", "--port", "0", code=1)
    restore(saved.file, elsewhere.data_dir)
    with running(elsewhere) as service:
        assert answers(service.client) == saved.answers


def test_a_restore_killed_while_it_unpacks_is_repeated(saved: Saved, elsewhere: Settings) -> None:
    words = ["restore", str(saved.file), "--data-dir", str(elsewhere.data_dir)]
    with subprocess.Popen([sys.executable, "-m", "app.cli", *words], env=environment(elsewhere)) as child:
        wait_until(lambda: (elsewhere.data_dir / UNFINISHED / "artifacts").exists() or child.poll() is not None)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert "repeat 'adiabat restore'" in adiabat(elsewhere, "serve", "--port", "0", code=1)
    restore(saved.file, elsewhere.data_dir)
    with running(elsewhere) as service:
        assert answers(service.client) == saved.answers


def test_registry_and_passages_on_servers_are_left_to_their_own_backups(settings: Settings, qdrant: str) -> None:
    at_postgres = settings.model_copy(update={"registry_url": "postgresql://adiabat@db/adiabat"})
    with (
        running(settings) as service,
        pytest.raises(Conflict, match="pg_dump"),
        taken(at_postgres, service.parts.artifacts, service.parts.store),
    ):
        pass
    with running(settings.model_copy(update={"qdrant_url": qdrant, "collection": "backed_up"})) as service:
        with pytest.raises(ApiError, match="snapshot of that collection") as caught:
            service.client.backup(settings.data_dir.parent / "f.tar")
        assert (caught.value.status, caught.value.slug) == (409, "conflict")
        assert list(settings.artifacts_dir.glob(".staging-*")) == []
