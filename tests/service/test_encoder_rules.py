"""States, versions, deletion and the way back: every rule of the contract that another file does not show."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.client import ApiError
from app.registry import EncoderState, NewJob
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.service import encoders

Register = Callable[[str, int], str]


@pytest.fixture
def register(service: Service, tiny: Path, sources: Path) -> Register:
    """Registers the encoder of a seed under a name; its key."""

    def made(name: str, seed: int) -> str:
        folder = sources / f"seed-{seed}"
        if not folder.exists():
            encoders.near(tiny, folder, seed=seed)
        item = service.client.register_encoder(name, path=str(folder))
        return f"{item.name}@{item.version}"

    return made


def refused(status: int, call: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.status == status
    return caught.value.detail


def set_state(service: Service, key: str, state: EncoderState) -> None:
    encoders_table = service.parts.registry.encoders
    encoders_table.set_state(encoders_table.find(key).id, state)


def damage(service: Service, key: str) -> Callable[[], None]:
    """Change one bit of the weights; gives back what mends it."""
    weights = service.settings.artifacts_dir / key / "delta.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-5] + bytes([content[-5] ^ 0x40]) + content[-4:])
    return lambda: weights.write_bytes(content) and None


def test_versions_count_from_one_for_each_name(register: Register) -> None:
    assert [register("bees", 1), register("bees", 2), register("wasps", 2)] == ["bees@1", "bees@2", "wasps@1"]


def test_by_name_alone_the_newest_ready_is_meant_and_all_versions_are_named(
    service: Service, register: Register
) -> None:
    register("bees", 1), register("bees", 2), register("bees", 3)
    set_state(service, "bees@3", EncoderState.REJECTED)
    found = service.client.encoder("bees")
    assert (found.version, found.versions) == (2, [1, 2, 3])
    assert service.client.encoder("bees@3").versions is None
    assert service.client.activate("bees").encoder.version == 2
    assert service.client.search("water", encoder="bees").encoder.version == 2


def test_a_name_of_which_nothing_is_ready_still_answers_with_its_newest(service: Service, register: Register) -> None:
    register("bees", 1)
    set_state(service, "bees@1", EncoderState.REJECTED)
    assert (service.client.encoder("bees").version, service.client.encoder("bees").state) == (1, "rejected")


def test_a_deleted_versions_number_is_never_used_again(service: Service, register: Register) -> None:
    register("bees", 1), register("bees", 2)
    service.client.delete_encoder("bees@2")
    assert register("bees", 2) == "bees@3"
    service.client.delete_encoder("bees@1")
    service.client.delete_encoder("bees@3")
    assert register("bees", 1) == "bees@4"


def test_a_deleted_encoder_is_in_no_list_and_still_says_what_it_was(service: Service, register: Register) -> None:
    register("bees", 1), register("bees", 2)
    digest = service.client.encoder("bees@1").digest
    service.client.delete_encoder("bees@1")
    service.client.delete_encoder("bees@1")  # twice has the effect of once
    assert [f"{item.name}@{item.version}" for item in service.client.encoders()] == ["base@1", "bees@2"]
    assert service.client.encoder("bees").versions == [2]
    gone = service.client.encoder("bees@1")
    assert (gone.state, gone.digest) == ("deleted", digest)
    refused(409, lambda: service.client.activate("bees@1", force=True))
    refused(404, lambda: service.client.search("water", encoder="bees@1"))
    service.client.delete_encoder("bees@2")
    refused(404, lambda: service.client.encoder("bees"))


def test_a_deleted_encoders_past_stays_in_the_history(service: Service, register: Register) -> None:
    register("bees", 1), register("wasps", 2)
    for key in ("bees", "wasps", "base"):
        service.client.activate(key)
    service.client.delete_encoder("bees@1")
    assert [item.encoder for item in service.client.history()] == ["base@1", "wasps@1", "bees@1", "base@1"]


def test_deletion_names_one_version_that_exists(service: Service, register: Register) -> None:
    register("bees", 1)
    assert "bees@1" in refused(422, lambda: service.client.delete_encoder("bees"))
    refused(404, lambda: service.client.delete_encoder("bees@2"))
    refused(404, lambda: service.client.delete_encoder("bees@one"))


def test_the_parent_of_an_unfinished_job_cannot_be_deleted_and_afterwards_it_can(
    service: Service, register: Register
) -> None:
    register("bees", 1)
    registry = service.parts.registry
    parent = registry.encoders.find("bees@1").id
    lists: dict[str, list[str]] = {"guards": []}
    dicts: dict[str, dict[str, str]] = {"dataset_digests": {}, "recipe": {}, "gate": {}}
    job = registry.jobs.add(NewJob(name="x", parent_id=parent, dataset="d", activate="never", **lists, **dicts))
    detail = refused(409, lambda: service.client.delete_encoder("bees@1"))
    assert job.id in detail
    assert "cancel" in detail
    service.client.cancel_tuning_job(job.id)
    wait_until(lambda: registry.jobs.get(job.id).finished)
    service.client.delete_encoder("bees@1")


def test_the_same_files_again_are_200_and_what_was_said_first_stays(
    service: Service, tiny: Path, sources: Path
) -> None:
    encoders.near(tiny, sources / "bees")

    def post(**said: object) -> httpx.Response:
        body = {"name": "bees", "source": {"path": "bees"}} | said
        return httpx.post(f"{service.url}/encoders", json=body, trust_env=False, timeout=60)

    first = post(description="first", labels={"domain": "bees"})
    again = post(description="second", labels={})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["location"] == again.headers["location"] == "/encoders/bees@1"
    kept = service.client.encoder("bees@1")
    assert (kept.description, kept.labels) == ("first", {"domain": "bees"})
    assert [check["check"] for check in again.json()["checks"]][:2] == ["dimension", "finite"]


def test_the_same_files_under_another_name_are_another_encoder_of_one_digest(
    service: Service, register: Register
) -> None:
    register("bees", 1), register("wasps", 1)
    assert service.client.encoder("bees").digest == service.client.encoder("wasps").digest
    service.client.delete_encoder("bees@1")
    assert service.client.activate("wasps").encoder.name == "wasps"


def test_a_rejected_encoder_becomes_active_by_force_alone_and_the_history_says_so(
    service: Service, register: Register
) -> None:
    register("bees", 1)
    set_state(service, "bees@1", EncoderState.REJECTED)
    assert "force=true" in refused(409, lambda: service.client.activate("bees@1"))
    assert service.client.active_encoder().encoder.generation == 1
    assert service.client.activate("bees@1", force=True).encoder.generation == 2
    assert [item.forced for item in service.client.history()] == [True, False]


def test_a_damaged_artifact_is_listed_as_broken_and_ready_again_when_it_is_mended(
    service: Service, register: Register
) -> None:
    register("bees", 1), register("bees", 2)
    mend = damage(service, "bees@2")
    assert "changed or damaged" in refused(409, lambda: service.client.activate("bees@2"))
    states = {f"{item.name}@{item.version}": item.state for item in service.client.encoders()}
    assert states == {"base@1": "ready", "bees@1": "ready", "bees@2": "broken"}
    assert service.client.active_encoder().encoder.generation == 1
    assert service.client.activate("bees").encoder.version == 1  # the newest that is ready
    refused(409, lambda: service.client.search("water", encoder="bees@2"))
    mend()
    assert service.client.activate("bees@2").encoder.version == 2
    assert service.client.encoder("bees@2").state == "ready"


def test_the_etag_is_the_generation_and_guards_switch_and_rollback(service: Service, register: Register) -> None:
    register("bees", 1)

    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as http:

        def put(etag: str) -> httpx.Response:
            return http.put("/active-encoder", json={"name": "bees"}, headers={"If-Match": etag})

        etag = http.get("/active-encoder").headers["etag"]
        assert etag == '"1"'
        assert put("bees").status_code == 422
        assert put('"7"').status_code == 412
        switched = put(etag)
        assert (switched.status_code, switched.headers["etag"]) == (200, '"2"')
        stale = http.post("/active-encoder/rollback", headers={"If-Match": etag})
        assert (stale.status_code, stale.json()["type"]) == (412, "urn:adiabat:problem:stale-generation")
        assert "ETag" in stale.json()["detail"]
        back = http.post("/active-encoder/rollback", headers={"If-Match": switched.headers["etag"]})
        assert (back.status_code, back.headers["etag"]) == (200, '"3"')
        assert put("*").status_code == 200


def test_a_candidate_that_is_not_loaded_in_time_changes_nothing(service: Service, register: Register) -> None:
    register("bees", 1)
    body = {"name": "bees", "timeout_s": 0.000_001}
    answer = httpx.put(f"{service.url}/active-encoder", json=body, trust_env=False)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:adiabat:problem:unavailable")
    assert answer.headers["retry-after"]
    assert service.client.active_encoder().encoder.generation == 1


def test_a_rollback_to_what_cannot_be_loaded_changes_nothing(settings: Settings, tiny: Path, sources: Path) -> None:
    with running(settings) as service:
        for name, seed in (("bees", 1), ("wasps", 2)):
            service.client.register_encoder(name, path=str(encoders.near(tiny, sources / name, seed=seed)))
            service.client.activate(name)
        damage(service, "bees@1")
    with running(settings) as again:  # the previous encoder is not in memory any more
        assert "changed or damaged" in refused(409, again.client.rollback)
        active = again.client.active_encoder()
        assert (active.encoder.name, active.encoder.generation) == ("wasps", 3)
        assert again.client.search("water").encoder.name == "wasps"


def test_rollback_after_rollback_goes_between_the_same_two(service: Service, register: Register) -> None:
    register("bees", 1), register("wasps", 2)
    service.client.activate("bees")
    service.client.activate("wasps")
    seen = [service.client.rollback() for _ in range(3)]
    assert [item.encoder.name for item in seen] == ["bees", "wasps", "bees"]
    assert [item.encoder.generation for item in seen] == [4, 5, 6]
    assert [item.previous.name for item in seen if item.previous] == ["wasps", "bees", "wasps"]
