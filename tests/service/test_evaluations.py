"""`/evaluations`: what is taken, what is refused, and whose things are kept. The test plays the trainer."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.client import AdiabatClient, ApiError
from app.registry import EncoderState, JobStatus, Registry
from tests.conftest import Service, wait_until
from tests.registry.test_queries import searched
from tests.service.evaluations import put, questions, stock
from tests.service.keys import SERVICE_KEY


@pytest.fixture
def stocked(service: Service, tiny: Path, sources: Path, tmp_path: Path) -> Service:
    return stock(service, tiny, sources, tmp_path)


@pytest.fixture
def registry(service: Service) -> Registry:
    return service.parts.registry


def refused(call: Callable[[], object]) -> tuple[int, str, str]:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value.status, caught.value.slug, caught.value.detail


def claimed(registry: Registry, evaluation_id: str) -> None:
    """The test plays the trainer."""
    wait_until(lambda: registry.jobs.evaluation(evaluation_id).status is JobStatus.PREPARED)
    assert registry.jobs.claim("test") is not None


def test_what_is_not_there_is_refused_by_name_at_once(stocked: Service) -> None:
    client = stocked.client

    def asked(dataset: str = "pumps", encoder: str = "base") -> tuple[int, str, str]:
        return refused(lambda: client.create_evaluation([dataset], [encoder]))

    assert asked(encoder="wasps")[:2] == (404, "encoder-not-found")
    assert "near@7" in asked(encoder="near@7")[2]
    assert asked(dataset="wasps")[:2] == (404, "dataset-not-found")
    status, slug, said = asked(dataset="pumps:dev")
    assert (status, slug) == (422, "bad-dataset")
    assert "'pumps' has no split 'dev'; it has gone, test." in said
    said = refused(lambda: client.create_evaluation(["gone"], ["base"]))[2]
    assert said.startswith("No dataset is named 'gone'; did you mean 'pumps:gone'?")
    client.delete_encoder("near@1")
    status, slug, said = asked(encoder="near@1")
    assert (status, slug, said) == (409, "conflict", "The encoder near@1 is deleted and cannot be measured.")
    assert client.evaluations() == []


def test_bodies_that_say_nothing_or_too_much_are_refused(stocked: Service) -> None:
    for body in (
        {},
        {"datasets": []},
        {"datasets": ["pumps"], "encoders": []},
        {"datasets": ["pumps"], "gate": {}},
        {"datasets": ["pumps:test:dev"]},
        {"datasets": ["pumps"] * 65},
        {"datasets": ["pumps"], "encoders": ["base"] * 17},
        {"replay": {"limit": 0}},
        {"replay": {"limit": 10_001}},
        {"replay": {"until": 0}},
    ):
        answer = httpx.post(f"{stocked.url}/evaluations", json=body, trust_env=False)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:adiabat:problem:invalid-field"), body


def test_names_are_fixed_to_versions_and_splits_and_the_base_comes_first_whoever_is_named(stocked: Service) -> None:
    client = stocked.client
    client.activate("near")
    told = client.create_evaluation(["pumps", "pumps:test", "own:test"], ["near", "active", "near@1"])
    assert told.encoders == ["base@1", "near@1"]
    assert told.datasets == ["pumps:test", "own:test"]
    assert told.status == "queued"
    assert client.create_evaluation(["pumps"]).encoders == ["base@1", "near@1"]
    client.rollback()
    assert client.create_evaluation(["pumps"]).encoders == ["base@1"]


def test_an_evaluation_is_made_once_under_its_key_and_told_where_it_is(stocked: Service) -> None:
    def post() -> httpx.Response:
        body, headers = {"datasets": ["pumps"]}, {"Idempotency-Key": "k"}
        return httpx.post(f"{stocked.url}/evaluations", json=body, headers=headers, trust_env=False)

    first, again = post(), post()
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    assert first.headers["location"] == f"/evaluations/{first.json()['id']}"
    assert [each.id for each in stocked.client.evaluations()] == [first.json()["id"]]


def test_tunings_and_evaluations_do_not_find_each_other(stocked: Service, tmp_path: Path) -> None:
    client = stocked.client
    put(client, tmp_path, "both", questions("train") + questions("dev")[:9])
    tuning, evaluation = client.create_tuning_job("bees", "both").id, client.create_evaluation(["pumps"]).id
    assert [each.id for each in client.tuning_jobs()] == [tuning]
    assert [each.id for each in client.evaluations()] == [evaluation]
    for call in (client.evaluation, client.cancel_evaluation, client.resume_evaluation):
        assert refused(lambda call=call: call(tuning))[:2] == (404, "evaluation-not-found")
    for call in (client.tuning_job, client.cancel_tuning_job, client.resume_tuning_job):
        assert refused(lambda call=call: call(evaluation))[:2] == (404, "job-not-found")
    assert 'adiabat_tuning_jobs{status="queued"}' in client.metrics()
    with stocked.parts.registry.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM tuning_jobs").scalar() == 2
    assert sum(stocked.parts.registry.jobs.counts().values()) == 1


def test_an_encoder_and_a_dataset_are_kept_while_an_evaluation_needs_them(stocked: Service, registry: Registry) -> None:
    client = stocked.client
    evaluation = client.create_evaluation(["pumps"], ["near"])
    status, slug, said = refused(lambda: client.delete_encoder("near@1"))
    assert (status, slug) == (409, "encoder-in-use")
    assert f"near@1 is measured by the evaluation {evaluation.id}; cancel it first" in said
    assert refused(lambda: client.delete_dataset("pumps"))[:2] == (409, "dataset-in-use")
    claimed(registry, evaluation.id)
    assert refused(lambda: client.delete_encoder("near@1"))[1] == "encoder-in-use"
    assert client.cancel_evaluation(evaluation.id).status == "cancelling"
    assert refused(lambda: client.delete_encoder("near@1"))[1] == "encoder-in-use"  # it may be read at this moment
    registry.jobs.move(evaluation.id, JobStatus.CANCELLED, only_from=(JobStatus.CANCELLING,))
    client.delete_encoder("near@1")
    client.delete_dataset("pumps")
    assert refused(lambda: client.cancel_evaluation(evaluation.id))[:2] == (409, "job-finished")
    assert client.evaluation(evaluation.id).encoders == ["base@1", "near@1"]  # what was is still told


def test_one_whose_encoder_went_while_it_was_interrupted_is_not_resumed(stocked: Service, registry: Registry) -> None:
    client = stocked.client
    evaluation = client.create_evaluation(["pumps"], ["near"])
    claimed(registry, evaluation.id)
    registry.jobs.interrupt(worker="test")
    told = client.evaluation(evaluation.id)
    assert told.status == "interrupted"
    assert "'adiabat evaluate --id'" in (told.reason or "")
    client.delete_encoder("near@1")
    assert "near@1 is deleted" in refused(lambda: client.resume_evaluation(evaluation.id))[2]
    registry.encoders.set_state(registry.encoders.find("near@1").id, EncoderState.READY)
    assert client.resume_evaluation(evaluation.id).status == "queued"


def test_the_store_is_written_out_only_for_datasets_that_are_searched_in_it(
    stocked: Service, registry: Registry
) -> None:
    client, settings = stocked.client, stocked.settings
    alone, beside = (client.create_evaluation(datasets) for datasets in (["own"], ["own", "pumps"]))
    wait_until(lambda: registry.jobs.evaluation(beside.id).status is JobStatus.PREPARED)
    assert registry.jobs.evaluation(alone.id).status is JobStatus.PREPARED
    assert (settings.training_set_dir(beside.id) / "meta.json").is_file()
    assert not settings.training_set_dir(alone.id).exists()
    assert settings.training_set_dir(alone.id).parent.is_dir()  # by which what it read is let go at its end
    client.cancel_evaluation(alone.id)
    wait_until(lambda: not settings.training_set_dir(alone.id).parent.exists())


def test_a_replay_of_an_empty_log_is_refused_and_one_of_a_kept_search_keeps_what_it_compares_with(
    stocked: Service, registry: Registry
) -> None:
    client = stocked.client
    status, slug, said = refused(lambda: client.create_evaluation(replay={}))
    assert (status, slug) == (409, "conflict")
    assert said.endswith("ADIABAT_QUERY_LOG says which share of the searches is kept, and here it is 0.")
    registry.queries.add([(searched("a" * 32), 0.0)])
    client.activate("near")
    told = client.create_evaluation(encoders=["base"], replay={"limit": 5})
    assert (told.encoders, told.datasets) == (["base@1", "near@1"], [])
    assert told.replay is not None
    assert (told.replay.limit, told.replay.since, told.replay.sample) == (5, None, 20)
    assert "no search" in refused(lambda: client.create_evaluation(replay={"since": 9e9}))[2]
    wait_until(lambda: registry.jobs.evaluation(told.id).status is JobStatus.PREPARED)
    assert stocked.settings.replay_file(told.id).is_file()
    client.cancel_evaluation(told.id)
    wait_until(lambda: not stocked.settings.replay_file(told.id).exists())


@pytest.mark.parametrize("settings", [{"api_key": SERVICE_KEY}], indirect=True)
def test_what_was_asked_is_told_only_to_those_who_may_read_the_query_log(stocked: Service, registry: Registry) -> None:
    client = stocked.client
    registry.queries.add([(searched("a" * 32), 0.0)])
    evaluation = client.create_evaluation(encoders=["near"], replay={})
    claimed(registry, evaluation.id)
    moved = {"searches": 1, "overlap": 0.5, "rbo": 0.5, "first_changed": 1.0, "churn": 2.0}
    change = {"query": "why", "lang": "", "times": 1, "overlap": 0.5, "rbo": 0.5, "before": ["p1"], "after": ["p2"]}
    replayed = {"near@1": moved | {"languages": {}, "changes": [change]}}
    counts = {"against": "base@1", "searches": 1, "queries": 1, "left_out": 0}
    result = {"datasets": {}, "matrix": {}, "replay": counts | {"encoders": replayed}}
    registry.jobs.move(evaluation.id, JobStatus.SUCCEEDED, only_from=(JobStatus.RUNNING,), result=result)
    for scope, sees in (("search", None), ("write", ["why"])):
        with AdiabatClient(stocked.url, client.create_key(scope, scope=scope).key) as holder:  # type: ignore[arg-type]
            found = holder.evaluation(evaluation.id).result
        assert found is not None
        assert found.replay is not None
        told = found.replay.encoders["near@1"]
        assert told.overlap == 0.5
        assert (told.changes and [each.query for each in told.changes]) == sees
