"""What is kept of a job and for how long, and what a full disk makes of one."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.registry import JobStatus
from app.registry.job_records import KEEP_INTERRUPTED_S
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.service.test_job_events import new_job


def test_files_of_an_interrupted_job_are_kept_for_a_week(service: Service) -> None:
    registry = service.parts.registry
    job_id, other = (new_job(service.url, service.client) for _ in range(2))
    wait_until(lambda: registry.jobs.get(other).status is JobStatus.PREPARED)
    for _ in range(2):
        assert registry.jobs.claim("test") is not None
    registry.jobs.interrupt(worker="test")
    aged(service, job_id, KEEP_INTERRUPTED_S - 60)
    aged(service, other, KEEP_INTERRUPTED_S + 60)
    wait_until(lambda: not (service.settings.jobs_dir / other).exists())
    assert service.client.resume_tuning_job(other).status == "queued"  # it starts over
    wait_until(lambda: (service.settings.training_set_dir(other) / "meta.json").is_file())
    # Now the round that removed the other's is over, so the one of this job was passed over.
    assert (service.settings.training_set_dir(job_id) / "meta.json").is_file()


def prepared(service: Service) -> str:
    job_id = new_job(service.url, service.client)
    wait_until(lambda: service.parts.registry.jobs.get(job_id).status is JobStatus.PREPARED)
    return job_id


def aged(service: Service, job_id: str, seconds: float) -> None:
    with service.parts.registry.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE tuning_jobs SET finished_at = finished_at - ? WHERE id = ?", (seconds, job_id)
        )


@pytest.fixture
def full_jobs_dir(settings: Settings) -> Iterator[Path]:
    """The jobs' folder on a tmpfs without a free byte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = settings.jobs_dir
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    space = os.statvfs(folder)
    (folder / "filler").write_bytes(b"\0" * (space.f_bavail * space.f_frsize))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_interrupts_a_job_that_can_be_resumed_when_there_is_room(
    settings: Settings, full_jobs_dir: Path
) -> None:
    with running(settings) as service:
        job_id = new_job(service.url, service.client)
        wait_until(lambda: service.client.tuning_job(job_id).status == "interrupted")
        reason = service.client.tuning_job(job_id).reason or ""
        assert "No space left" in reason
        assert "cancelling one frees its part" in reason
        (full_jobs_dir / "filler").unlink()
        service.client.resume_tuning_job(job_id)
        wait_until(lambda: service.parts.registry.jobs.get(job_id).status is JobStatus.PREPARED)


def test_a_stop_does_not_wait_for_an_export_and_the_job_is_prepared_at_the_next_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(settings) as service:
        begun, interrupted = threading.Event(), threading.Event()

        def export(_folder: Path) -> None:
            begun.set()
            assert interrupted.wait(30)
            raise Unavailable("The passage store is closed.")

        monkeypatch.setattr(service.parts.store, "export", export)
        monkeypatch.setattr(service.parts.store, "interrupt", interrupted.set)
        job_id = new_job(service.url, service.client)
        assert begun.wait(30)
    with running(settings) as service:
        wait_until(lambda: service.parts.registry.jobs.get(job_id).status is JobStatus.PREPARED)


def test_a_job_that_meets_a_bug_fails_and_holds_up_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    export, folders = service.parts.store.export, list[Path]()

    def broken_once(folder: Path) -> None:
        folders.append(folder)
        if folder == folders[0]:
            raise ValueError("no such thing")
        export(folder)

    monkeypatch.setattr(service.parts.store, "export", broken_once)
    first, second = (new_job(service.url, service.client) for _ in range(2))
    wait_until(lambda: service.parts.registry.jobs.get(second).status is JobStatus.PREPARED)
    failed = service.client.tuning_job(first)
    assert (failed.status, "no such thing" in (failed.reason or "")) == ("failed", True)
    assert "Traceback" in caplog.text


def test_an_activation_waits_for_what_is_away_for_a_moment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, calls, away = service.parts.registry.jobs, list[str](), [Unavailable(), None]

    def activate(name: str, *_: object, **__: object) -> None:
        calls.append(name)
        if error := away.pop(0):
            raise error

    monkeypatch.setattr(service.parts.switcher, "activate", activate)
    job_id = new_job(service.url, service.client)
    wait_until(lambda: jobs.get(job_id).status is JobStatus.PREPARED)
    with service.parts.registry.database.write() as connection:
        connection.exec_driver_sql("UPDATE tuning_jobs SET activate = 'if-gate-passes' WHERE id = ?", (job_id,))
    made = service.parts.registry.encoders.find("base@1").id
    jobs.move(job_id, JobStatus.SUCCEEDED, only_from=(JobStatus.PREPARED,), encoder_id=made)
    wait_until(lambda: jobs.get(job_id).activation is not None)
    assert (jobs.get(job_id).activation, len(calls)) == ("activated", 2)


def test_a_trainer_is_dead_when_it_was_seen_silent_and_not_when_the_clock_was_set(settings: Settings) -> None:
    with running(settings) as service:
        registry = service.parts.registry
        job_id = prepared(service)
        assert registry.jobs.claim("test") is not None
        with registry.database.write() as connection:
            connection.exec_driver_sql("UPDATE tuning_jobs SET heartbeat_at = heartbeat_at - 3600")
        for _ in range(2):  # a second job is prepared only after a whole round of the keeper
            prepared(service)
        assert registry.jobs.get(job_id).status is JobStatus.RUNNING
    with running(settings.model_copy(update={"trainer_lease_s": 0.2})) as service:
        jobs = service.parts.registry.jobs
        wait_until(lambda: jobs.get(job_id).status is JobStatus.INTERRUPTED)


@pytest.mark.parametrize("settings", [{"trainer_lease_s": 1.0}], indirect=True)
def test_what_a_silent_trainer_had_is_queued_where_another_one_is_alive(service: Service) -> None:
    registry = service.parts.registry
    job_id = prepared(service)
    assert registry.jobs.claim("gone/1") is not None

    def queued() -> bool:
        registry.workers.beat("alive")
        return registry.jobs.get(job_id).status is JobStatus.PREPARED

    wait_until(queued)
    again = registry.jobs.claim("alive/1")
    assert again is not None
    assert (again.id, again.attempts) == (job_id, 2)
