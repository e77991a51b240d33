"""What a worker makes of the end of a job: whose word counts, and that nothing is published by who lost it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trainer.worker
from app.registry import EvaluationRecord, JobRecord, JobStatus, Registry
from app.settings import Settings
from tests.registry.jobs import add, new_encoder, prepared_evaluation, prepared_job
from trainer.stopping import Stopped
from trainer.worker import Worker
from trainer.workplace import Workplace


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, trainer=False)


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    opened = Registry(settings.registry_path)
    yield opened
    opened.close()


def work(settings: Settings, monkeypatch: pytest.MonkeyPatch, run_job: Callable[[JobRecord], None]) -> None:
    """One job at a worker named "embedded"; `run_job` tells what happens meanwhile."""
    worker = Worker(settings, "embedded")

    def run(job: JobRecord, _place: Workplace) -> None:
        worker.stop()
        run_job(job)

    monkeypatch.setattr(trainer.worker, "run_job", run)
    worker.run()


def publish(registry: Registry, job: JobRecord) -> None:
    """As `trainer.publish` does, without weights."""

    def require_held(connection: Any) -> None:
        if not registry.jobs.is_held(connection, job):
            raise Stopped

    def finish(connection: Any, record: Any, _new: bool) -> None:
        registry.jobs.finish(connection, job, JobStatus.SUCCEEDED, encoder_id=record.id)

    registry.encoders.add(new_encoder(), lambda _: None, finish, require_held)


def test_an_encoder_and_the_end_of_its_job_come_together(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = prepared_job(registry)
    work(settings, monkeypatch, lambda job: publish(registry, job))
    ended = registry.jobs.get(job_id)
    assert (ended.status, ended.encoder_id) == (JobStatus.SUCCEEDED, registry.encoders.find("bees@1").id)
    assert registry.events.after(job_id, 0, 99)[-1].data["status"] == "succeeded"


def test_a_cancel_that_came_before_the_encoder_leaves_none(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = prepared_job(registry)

    def run_job(job: JobRecord) -> None:
        registry.jobs.cancel(job.id)
        publish(registry, job)

    work(settings, monkeypatch, run_job)
    assert registry.jobs.get(job_id).status is JobStatus.CANCELLED
    assert [each.name for each in registry.encoders.all()] == ["base"]


def test_an_evaluation_that_ends_after_a_cancel_tells_nothing(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation_id = prepared_evaluation(registry, add(registry, "base"))
    worker = Worker(settings, "embedded")

    def run(job: EvaluationRecord, _place: Workplace) -> dict[str, Any]:
        worker.stop()
        registry.jobs.cancel(job.id)
        return {"datasets": {}, "matrix": {}}

    monkeypatch.setattr(trainer.worker, "run_evaluation", run)
    worker.run()
    ended = registry.jobs.evaluation(evaluation_id)
    assert (ended.status, ended.result) == (JobStatus.CANCELLED, None)


def test_a_trainer_that_was_taken_for_dead_publishes_nothing_and_ends_nothing(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = prepared_job(registry)

    def run_job(job: JobRecord) -> None:
        registry.jobs.interrupt(worker="embedded", hand_on=True)
        assert registry.jobs.claim("embedded/second") is not None
        publish(registry, job)

    work(settings, monkeypatch, run_job)
    now = registry.jobs.get(job_id)
    assert (now.status, now.worker) == (JobStatus.RUNNING, "embedded/second")
    assert [each.name for each in registry.encoders.all()] == ["base"]


def test_a_trainer_on_a_folder_that_no_service_had_says_so(
    settings: Settings, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> str:
        caplog.clear()
        worker = Worker(settings, "embedded")
        worker.stop()
        worker.run()
        return caplog.text

    caplog.set_level("INFO", logger="adiabat.trainer")
    assert f"no service has ever started on {settings.data_dir}" in said()
    add(registry, "base")
    assert f"waiting for jobs of the service on {settings.data_dir}" in said()


@pytest.mark.parametrize(("others", "left"), [(["w2"], JobStatus.PREPARED), ([], JobStatus.INTERRUPTED)])
def test_one_that_is_stopped_hands_its_job_on_where_another_trainer_lives(
    settings: Settings,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    others: list[str],
    left: JobStatus,
) -> None:
    job_id = prepared_job(registry)
    for name in others:
        registry.workers.beat(name)

    def run_job(_job: JobRecord) -> None:
        raise Stopped

    work(settings, monkeypatch, run_job)
    now = registry.jobs.get(job_id)
    assert (now.status, now.worker is None, now.attempts) == (left, bool(others), 0 if others else 1)
    assert "its trainer is being stopped" in registry.events.after(job_id, 0, 99)[-1].data["reason"] or not others


def test_a_cancel_counts_though_the_trainer_is_stopped_and_another_lives(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = prepared_job(registry)
    registry.workers.beat("w2")

    def run_job(job: JobRecord) -> None:
        registry.jobs.cancel(job.id)
        raise Stopped

    work(settings, monkeypatch, run_job)
    assert registry.jobs.get(job_id).status is JobStatus.CANCELLED
