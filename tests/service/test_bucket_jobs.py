"""What a job has in a bucket: released when it is done with, made anew where it is damaged, sent before the turn."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.bucket import Bucket
from app.encoders.copying import copy_artifacts
from app.encoders.shared_artifacts import SharedArtifacts, open_artifacts
from app.registry import JobStatus, Registry
from app.registry.job_records import MAX_ATTEMPTS
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.s3 import S3Server
from tests.service.test_job_events import LINES, new_job
from trainer.worker import Worker


@pytest.fixture
def with_bucket(settings: Settings, s3: S3Server) -> Settings:
    """One machine's folder, whose encoders were copied to a bucket."""
    made = settings.model_copy(update={"artifacts_url": s3.fresh()})
    registry = Registry(made.registry_at)
    copy_artifacts(str(made.artifacts_url), made, registry)
    registry.close()
    return made


@pytest.fixture
def service(with_bucket: Settings) -> Iterator[Service]:
    with running(with_bucket) as started:
        yield started


def put_dataset(service: Service, query: str) -> None:
    body = "\n".join(json.dumps(line | {"query": f"{line['query']} {query}"}) for line in LINES)
    kind = {"Content-Type": "application/x-ndjson"}
    httpx.put(f"{service.url}/datasets/d", content=body, headers=kind, trust_env=False).raise_for_status()


def prepared(service: Service) -> str:
    job_id = new_job(service.url, service.client)
    wait_until(lambda: service.parts.registry.jobs.get(job_id).status is JobStatus.PREPARED)
    return job_id


def names(settings: Settings) -> set[str]:
    return set(Bucket(str(settings.artifacts_url)).names(""))


def damage(s3: S3Server, settings: Settings, job_id: str) -> str:
    """One byte of an object of its training set; returns the object's path."""
    objects = s3.objects(str(settings.artifacts_url))
    named = json.loads(objects[f"jobs/{job_id}/training-set.json"])
    [digest] = [each["sha256"] for each in named["files"] if each["path"] == "meta.json"]
    path = f"objects/{named['area']}/{digest}"
    s3.put(str(settings.artifacts_url), path, objects[path][:-1] + b"?")
    return path


def is_whole(settings: Settings, job_id: str, folder: Path) -> bool:
    bucket = Bucket(str(settings.artifacts_url))
    content = bucket.content(f"jobs/{job_id}/training-set")
    assert content is not None
    bucket.fetch(content, folder)
    return (folder / "meta.json").is_file()


def test_a_dataset_that_only_an_ended_job_needed_leaves_the_bucket_though_its_trainer_tidied_before_the_service(
    with_bucket: Settings,
) -> None:
    """They share a folder; by what lies in it the service tells which jobs have ended."""
    with running(with_bucket) as service:
        service.client.upsert_passages([{"id": "p1", "text": "water pump"}])
        job_id = prepared(service)
        (old,) = service.parts.registry.jobs.get(job_id).dataset_digests.values()
        put_dataset(service, "else")
        new = service.client.dataset("d").digest
    old, new = (f"datasets/{each.removeprefix('sha256:')}" for each in (old, new))
    assert {old, new} < names(with_bucket)
    registry = Registry(with_bucket.registry_at)
    registry.jobs.cancel(job_id)
    trainers = open_artifacts(with_bucket, registry)
    assert isinstance(trainers, SharedArtifacts)
    trainers.forget(registry, with_bucket.jobs_dir)
    assert list(with_bucket.jobs_dir.iterdir()) == []
    registry.close()
    with running(with_bucket):
        wait_until(lambda: old not in names(with_bucket))
        wait_until(lambda: not any(name.startswith("jobs/") for name in names(with_bucket)))
        assert names(with_bucket) == {new, "encoders/base@1"}  # nothing under lost/


def test_a_damaged_training_set_is_made_anew_when_its_job_is_resumed(
    service: Service, s3: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, settings = service.parts.registry, service.settings
    service.client.upsert_passages([{"id": "p1", "text": "water pump"}])
    job_id = prepared(service)
    assert registry.jobs.claim("test/1") is not None
    path = damage(s3, settings, job_id)
    shutil.rmtree(settings.jobs_dir / job_id)
    registry.jobs.interrupt(worker="test")
    service.client.resume_tuning_job(job_id)
    wait_until(lambda: registry.jobs.get(job_id).status is JobStatus.PREPARED)
    assert is_whole(settings, job_id, tmp_path / "fetched")
    [said] = [record.message for record in caplog.records if "made anew" in record.message]
    assert f"{path}, meta.json, has SHA-256" in said
    assert path not in s3.objects(str(settings.artifacts_url))


@pytest.mark.parametrize("persistent", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_trainer_sends_a_job_back_whose_training_set_is_damaged(
    service: Service, s3: S3Server, tmp_path: Path, persistent: bool
) -> None:
    """The service, whose folder is another one, makes it anew; a bucket that spoils it again and again ends the job."""
    registry, settings = service.parts.registry, service.settings
    service.client.upsert_passages([{"id": "p1", "text": "water pump"}])
    job_id = prepared(service)
    if persistent:
        with registry.database.write() as connection:
            connection.exec_driver_sql("UPDATE tuning_jobs SET attempts = ?", (MAX_ATTEMPTS - 1,))
    damage(s3, settings, job_id)
    elsewhere = settings.model_copy(update={"data_dir": tmp_path / "elsewhere", "registry_url": _address(settings)})
    worker = Worker(elsewhere, "far")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainer.worker.be_idle", lambda: None)  # a thread of this process
        patched.setattr("trainer.worker.run_job", lambda *_: worker.stop())  # it found a whole one
        thread = threading.Thread(target=worker.run)
        thread.start()
        wait_until(lambda: ended(service, job_id))
        worker.stop()
        thread.join()
    told = [event.data.get("reason", "") for event in registry.events.after(job_id, 0, 99)]
    anew = "its training set in the bucket is damaged, and is made anew: The object"
    assert any(each.startswith(anew) for each in told) is not persistent
    job = registry.jobs.get(job_id)
    if persistent:
        assert (job.status, job.attempts) == (JobStatus.FAILED, MAX_ATTEMPTS)
        assert "meta.json, has SHA-256" in str(job.reason)
    else:
        assert job.attempts == 2
        assert (elsewhere.training_set_dir(job_id) / "meta.json").is_file()


def ended(service: Service, job_id: str) -> bool:
    """Whether it failed, or a trainer has it for the second time."""
    job = service.parts.registry.jobs.get(job_id)
    return job.status is JobStatus.FAILED or job.attempts == 2


def _address(settings: Settings) -> str:
    return f"sqlite:///{settings.registry_path}"


def test_while_a_dataset_is_sent_to_the_bucket_others_have_their_turn(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[bool] = []
    send = Bucket.send

    def sending(self: Bucket, *given: object) -> None:
        taking = threading.Thread(target=service.parts.datasets.release, args=([],), daemon=True)
        taking.start()
        taking.join(5)
        turns.append(not taking.is_alive())
        send(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Bucket, "send", sending)
    put_dataset(service, "water")
    assert turns == [True]
    service.client.upsert_passages([{"id": "p1", "text": "water pump"}])
    service.client.judge("pump", "p1", 3)
    wanted = [("judgments", "train")]
    with service.parts.datasets.held(wanted):
        [record] = service.parts.datasets.fixed(wanted, "")
    assert turns == [True, True]
    assert service.parts.artifacts.dataset(record.digest).is_dir()
