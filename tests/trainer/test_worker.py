"""What a worker makes of the end of a job: whose word counts, and what is taken back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trainer.worker
from app.registry import EncoderRecord, EncoderState, EvaluationRecord, JobRecord, JobStatus, Registry
from app.settings import Settings
from tests.registry.jobs import add, prepared_evaluation, prepared_job
from trainer.job import Outcome
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


def work(settings: Settings, monkeypatch: pytest.MonkeyPatch, run_job: Callable[[JobRecord], EncoderRecord]) -> None:
    """One job at a worker named "embedded"; `run_job` registers an encoder and tells what happens meanwhile."""
    worker = Worker(settings, "embedded")

    def run(job: JobRecord, _place: Workplace) -> Outcome:
        worker.stop()
        return Outcome(record=run_job(job), new=True, status=JobStatus.SUCCEEDED, result={})

    monkeypatch.setattr(trainer.worker, "run_job", run)
    worker.run()


def test_an_encoder_that_came_after_a_cancel_is_taken_back(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = prepared_job(registry)

    def run_job(job: JobRecord) -> EncoderRecord:
        registry.jobs.cancel(job.id)
        return add(registry)

    work(settings, monkeypatch, run_job)
    assert registry.jobs.get(job_id).status is JobStatus.CANCELLED
    assert registry.encoders.find("bees@1").state is EncoderState.DELETED


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


def test_a_trainer_of_the_same_name_that_was_taken_for_dead_harms_nothing(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = prepared_job(registry)

    def run_job(_job: JobRecord) -> EncoderRecord:
        registry.jobs.interrupt(worker="embedded")
        registry.jobs.resume(job_id)
        registry.jobs.move(job_id, JobStatus.PREPARED, only_from=(JobStatus.QUEUED,))
        registry.jobs.claim("embedded/second")
        return add(registry)

    work(settings, monkeypatch, run_job)
    assert registry.jobs.get(job_id).status is JobStatus.RUNNING
    assert registry.encoders.find("bees@1").state is EncoderState.READY


def test_an_encoder_that_a_job_names_is_not_taken_back(registry: Registry) -> None:
    job_id, named, free = prepared_job(registry), add(registry), add(registry, "wasps")
    registry.jobs.move(job_id, JobStatus.SUCCEEDED, only_from=(JobStatus.PREPARED,), encoder_id=named.id)
    assert not registry.encoders.take_back(named.id)
    assert registry.encoders.take_back(free.id)
    registry.activations.append(add(registry, "ants").id, reason="activate")
    assert not registry.encoders.take_back(registry.encoders.find("ants@1").id)


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
