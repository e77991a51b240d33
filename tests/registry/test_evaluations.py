"""Evaluations in the registry: jobs of another kind, by the same rules, and found only by who asks for their kind."""

import pytest

from app.errors import Conflict, EvaluationNotFound, JobNotFound
from app.registry import EncoderState, EvaluationRecord, JobRecord, JobStatus, Registry
from tests.registry.jobs import add, new_evaluation, prepared_evaluation, prepared_job


def test_an_evaluation_comes_back_as_it_was_made(registry: Registry) -> None:
    base, bees = add(registry, "base"), add(registry)
    made = registry.jobs.add_evaluation(new_evaluation(base, bees))
    assert registry.jobs.evaluation(made.id) == made
    assert (made.encoder_ids, made.datasets, made.reads_store) == ([base.id, bees.id], ["d:test"], True)
    assert made.status is JobStatus.QUEUED
    assert [event.data["status"] for event in registry.events.after(made.id, 0, 9)] == ["queued"]


def test_each_kind_is_found_by_who_asks_for_it_and_both_by_who_works(registry: Registry) -> None:
    tuning, evaluation = prepared_job(registry), prepared_evaluation(registry, add(registry))
    assert [job.id for job in registry.jobs.all()] == [tuning]
    assert [job.id for job in registry.jobs.evaluations()] == [evaluation]
    with pytest.raises(JobNotFound, match=evaluation):
        registry.jobs.get(evaluation)
    with pytest.raises(EvaluationNotFound, match=tuning):
        registry.jobs.evaluation(tuning)
    assert registry.jobs.counts() == {"prepared": 1}
    claimed = [registry.jobs.claim("w"), registry.jobs.claim("w")]
    assert [(type(job), job.id) for job in claimed if job] == [(JobRecord, tuning), (EvaluationRecord, evaluation)]
    assert {type(job) for job in registry.jobs.with_status(JobStatus.RUNNING)} == {JobRecord, EvaluationRecord}


def test_each_kind_is_told_how_it_is_resumed(registry: Registry) -> None:
    tuning, evaluation = prepared_job(registry), prepared_evaluation(registry, add(registry))
    assert registry.jobs.claim("w")
    assert registry.jobs.claim("w")
    assert set(registry.jobs.interrupt(worker="w")) == {tuning, evaluation}
    assert "adiabat jobs resume" in (registry.jobs.get(tuning).reason or "")
    assert "adiabat evaluate --id" in (registry.jobs.evaluation(evaluation).reason or "")


def test_an_encoder_is_in_use_by_unfinished_evaluations_that_measure_it(registry: Registry) -> None:
    base, bees, wasps = add(registry, "base"), add(registry), add(registry, "wasps")
    evaluation = prepared_evaluation(registry, base, bees)
    assert [job.id for job in registry.jobs.uses_encoder(bees.id)] == [evaluation]
    assert registry.jobs.uses_encoder(wasps.id) == []
    registry.jobs.cancel(evaluation)
    assert registry.jobs.uses_encoder(bees.id) == []


@pytest.mark.parametrize("state", [EncoderState.DELETED, EncoderState.BROKEN])
def test_an_evaluation_is_not_made_of_an_encoder_that_went_meanwhile(registry: Registry, state: EncoderState) -> None:
    base, bees = add(registry, "base"), add(registry)
    registry.encoders.set_state(bees.id, state)
    with pytest.raises(Conflict, match=f"bees@1 became {state}"):
        registry.jobs.add_evaluation(new_evaluation(base, bees))
    assert registry.jobs.evaluations() == []
