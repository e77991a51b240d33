"""`Idempotency-Key` on `POST /encoders`: once, whatever the network does to the request."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.cli.datasets import zip_folder
from app.client import AdiabatClient
from app.errors import IdempotencyKeyInUse, IdempotencyKeyReused, Unavailable
from app.registry import Answer, Encoders, Registry
from app.registry.idempotency import KEPT_S, IdempotencyKeys
from app.registry.tables import idempotency_keys
from app.settings import Settings
from tests.conftest import Service, process, running
from tests.service import encoders, killed_service
from tests.service.archives import packed, upload

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
CALL = "POST /encoders"
ANSWER = Answer(status=201, body={"a": 1}, location="/x")


def post(service: Service, key: str | None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"name": "bees", "source": {"path": "bees"}} | body
    return httpx.post(f"{service.url}/encoders", json=body, headers=headers, trust_env=False, timeout=60)


@pytest.fixture
def bees(service: Service, tiny: Path, sources: Path) -> Service:
    encoders.near(tiny, sources / "bees")
    return service


def test_the_same_key_and_body_answer_what_they_answered_though_the_encoder_is_gone(bees: Service) -> None:
    first = post(bees, "k1")
    assert first.status_code == 201
    bees.client.delete_encoder("bees@1")
    again = post(bees, "k1")
    assert (again.status_code, again.json(), again.headers["location"]) == (201, first.json(), "/encoders/bees@1")
    assert [item.name for item in bees.client.encoders()] == ["base"]  # nothing was done
    assert post(bees, None).json()["version"] == 2


def test_a_key_with_another_body_is_refused_and_another_key_is_another_request(bees: Service) -> None:
    post(bees, "k1")
    refused = post(bees, "k1", description="changed")
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:adiabat:problem:idempotency-key-reused")
    assert "'k1'" in refused.json()["detail"]
    assert post(bees, "k2").status_code == 200


def test_a_refused_request_may_be_repeated_under_its_key_once_the_cause_is_mended(
    service: Service, tiny: Path, sources: Path
) -> None:
    assert post(service, "k1").status_code == 422
    encoders.near(tiny, sources / "bees")
    assert post(service, "k1").status_code == 201


def test_an_upload_is_known_by_its_content_not_by_how_the_form_was_written(
    service: Service, tiny: Path, tmp_path: Path
) -> None:
    content = packed(encoders.near(tiny, tmp_path / "bees"))
    first, again = upload(service, content, "k1"), upload(service, content, "k1")  # each with its own boundary
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    other = packed(encoders.near(tiny, tmp_path / "other", seed=2))
    assert upload(service, other, "k1").status_code == 422


def test_many_at_once_with_one_key_make_one_encoder_and_all_hear_of_it(bees: Service) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: post(bees, "k1"), range(8)))
    assert {answer.status_code for answer in answers} == {201}  # a second registration would have answered 200
    assert len({answer.text for answer in answers}) == 1
    assert bees.client.encoder("bees").versions == [1]


def test_a_tuning_job_is_queued_once_under_its_key(service: Service, tmp_path: Path) -> None:
    archive = zip_folder(SAMPLES, tmp_path / "bees.zip", corpus=False)
    service.client.put_dataset("bees", archive)

    def post(**said: Any) -> httpx.Response:
        body = {"name": "bees", "dataset": "bees"} | said
        return httpx.post(f"{service.url}/tuning-jobs", json=body, headers={"Idempotency-Key": "k"}, trust_env=False)

    first, again = post(), post()
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    assert first.headers["location"] == f"/tuning-jobs/{first.json()['id']}"
    assert post(activate="if-gate-passes").status_code == 422
    assert [job.id for job in service.client.tuning_jobs()] == [first.json()["id"]]


def broken(*_: object) -> None:
    raise Unavailable("The registry is away.")


def test_what_cannot_be_noted_is_not_done_and_the_key_is_free(bees: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(IdempotencyKeys, "finish", broken)
        assert post(bees, "k1").status_code == 503
        assert [item.name for item in bees.client.encoders()] == ["base"]
    assert post(bees, "k1").status_code == 201


def test_an_answer_that_was_kept_stays_though_the_call_fails_behind_it(
    bees: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Encoders.add

    def failing(*given: Any) -> None:
        add(*given)
        raise RuntimeError("behind the commit")

    with monkeypatch.context() as patched:
        patched.setattr(Encoders, "add", failing)
        assert post(bees, "k1").status_code == 500
    assert post(bees, "k1").status_code == 201  # what the first was to hear; done anew it would be 200


@pytest.mark.parametrize("moment", [killed_service.IN_TRANSACTION, killed_service.COMMITTED])
def test_what_a_kill_9_interrupts_at_its_commit_is_made_once_under_its_key(
    settings: Settings, tiny: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    encoders.near(tiny, sources / "bees")
    archive = zip_folder(SAMPLES, tmp_path / "bees.zip", corpus=False)
    monkeypatch.setenv(killed_service.MOMENT, moment)
    bodies = {"encoders": {"name": "bees", "source": {"path": "bees"}}, "tuning-jobs": {"name": "b", "dataset": "bees"}}

    def post(client: AdiabatClient, call: str) -> httpx.Response:
        headers = {"Idempotency-Key": "k"}
        return httpx.post(f"{client.url}/{call}", json=bodies[call], headers=headers, trust_env=False, timeout=60)

    for call in bodies:
        with process(settings, "--no-trainer", program=killed_service.__name__) as (child, client):
            client.put_dataset("bees", archive)
            with pytest.raises(httpx.RemoteProtocolError):
                post(client, call)
            assert child.wait(60) == -signal.SIGKILL
    with process(settings, "--no-trainer") as (_, client):
        done = [item for item in client.encoders() if item.name == "bees"], client.tuning_jobs()
        assert [len(made) for made in done] == ([1, 1] if moment == killed_service.COMMITTED else [0, 0])
        assert post(client, "encoders").status_code == 201  # done anew on top of the first it would be 200
        job_id = post(client, "tuning-jobs").json()["id"]
        assert [job.id for job in client.tuning_jobs()] == [job_id]
        assert client.encoder("bees").versions == [1]


def test_a_key_that_cannot_be_freed_does_not_hide_why_the_call_was_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IdempotencyKeys, "forget", broken)
    assert post(service, "k1").json()["type"] == "urn:adiabat:problem:source-refused"


def test_a_key_that_is_none_is_422(bees: Service) -> None:
    for key in ("", "x" * 256, "with space"):
        assert post(bees, key).status_code == 422, key


def test_a_key_of_a_call_that_died_with_its_process_is_free_again(
    settings: Settings, tiny: Path, sources: Path
) -> None:
    encoders.near(tiny, sources / "bees")
    dead = Registry(settings.registry_path)
    dead.idempotency.begin(CALL, "k1", "sent before the crash")
    dead.close()
    with running(settings) as service:
        assert post(service, "k1").status_code == 201


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(tmp_path / "registry.db")
    yield opened
    opened.close()


def finish(registry: Registry, key: str) -> None:
    with registry.database.write() as connection:
        registry.idempotency.finish(CALL, key, connection, ANSWER)


def test_a_key_is_taken_once_and_in_use_until_it_is_answered(registry: Registry) -> None:
    keys = registry.idempotency
    assert keys.begin(CALL, "k", "body") is None
    with pytest.raises(IdempotencyKeyInUse, match="still running"):
        keys.begin(CALL, "k", "body")
    with pytest.raises(IdempotencyKeyReused):
        keys.begin(CALL, "k", "other body")
    assert keys.begin("POST /tuning-jobs", "k", "other body") is None  # a key belongs to its call
    finish(registry, "k")
    assert keys.begin(CALL, "k", "body") == ANSWER


def test_a_key_is_forgotten_after_a_day(registry: Registry) -> None:
    keys = registry.idempotency
    keys.begin(CALL, "k", "body")
    finish(registry, "k")
    for age_s, kept in ((KEPT_S - 60, True), (KEPT_S + 60, False)):
        with registry.database.write() as connection:
            connection.execute(update(idempotency_keys).values(created_at=time.time() - age_s))
        assert (keys.begin(CALL, "k", "body") == ANSWER) is kept
