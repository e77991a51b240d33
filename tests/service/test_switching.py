"""The switching contract, on the real app over a real socket."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.client import AdiabatClient, ApiError
from app.passages.disk import copy_tree
from tests.conftest import Service, running, wait_until
from tests.service import encoders

PASSAGES = [
    {"id": f"p{n}", "text": text, "title": "oil" if n % 2 else ""}
    for n, text in enumerate(
        ("the water pump and the oil filter", "pain in the heart at night", "how to repair the engine", "light sleep")
    )
]
QUERIES = ("engine repair cost", "heart pain treatment", "wie funktioniert der filter", "what is sleep")


@pytest.fixture
def tuned(service: Service, tiny: Path, sources: Path) -> str:
    """A registered encoder whose scores differ visibly from the base's."""
    service.client.upsert_passages(PASSAGES)
    folder = encoders.near(tiny, sources / "tuned", scale=0.1)
    return str(service.client.register_encoder("tuned", path=str(folder), force=True).name)


def test_a_switch_names_both_encoders_and_the_next_search_uses_the_new_one(service: Service, tuned: str) -> None:
    client = service.client
    assert client.search("water").encoder.name == "base"
    switched = client.activate(tuned)
    assert (switched.encoder.name, switched.encoder.generation) == (tuned, 2)
    assert switched.previous.name == "base"
    assert switched.swap.load_ms > 0
    used = client.search("water").encoder
    assert (used.name, used.version, used.generation) == (tuned, 1, 2)
    assert used.digest == client.encoder(tuned).digest


def test_rollback_goes_back_and_a_second_one_comes_back_as_new_generations(service: Service, tuned: str) -> None:
    client = service.client
    client.activate(tuned)
    back = client.rollback()
    assert (back.encoder.name, back.encoder.generation) == ("base", 3)
    assert back.swap.load_ms == 0  # it stayed resident
    again = client.rollback()
    assert (again.encoder.name, again.encoder.generation) == (tuned, 4)
    assert [item.reason for item in client.history()] == ["rollback", "rollback", "activate", "start"]


def test_rollback_with_nothing_before_is_refused(client: AdiabatClient) -> None:
    with pytest.raises(ApiError, match="nothing to roll back") as caught:
        client.rollback()
    assert caught.value.status == 409


def test_a_stale_generation_is_refused_and_nothing_changes(service: Service, tuned: str) -> None:
    client = service.client
    client.activate(tuned, if_generation=1)
    for call in (lambda: client.activate("base", if_generation=1), lambda: client.rollback(if_generation=1)):
        with pytest.raises(ApiError) as caught:
            call()
        assert (caught.value.status, caught.value.slug) == (412, "stale-generation")
    assert client.active_encoder().encoder.generation == 2


def test_activating_what_is_active_keeps_the_generation_and_the_way_back(service: Service, tuned: str) -> None:
    service.client.activate(tuned)
    again = service.client.activate(tuned)
    assert again.encoder.generation == 2
    assert again.previous.name == "base"


def test_swap_keeps_the_old_encoder_when_the_new_one_is_corrupt(service: Service, tuned: str) -> None:
    weights = service.settings.artifacts_dir / "tuned@1" / "delta.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 0x40
    weights.write_bytes(content)
    with pytest.raises(ApiError) as caught:
        service.client.activate(tuned)
    assert (caught.value.status, caught.value.slug) == (409, "encoder-broken")
    assert service.client.search("water").encoder == service.client.active_encoder().encoder
    assert service.client.active_encoder().encoder.generation == 1


def test_an_unknown_encoder_is_404_for_switch_search_and_read(client: AdiabatClient) -> None:
    for call in (
        lambda: client.activate("nobody"),
        lambda: client.search("water", encoder="nobody"),
        lambda: client.encoder("base@7"),
    ):
        with pytest.raises(ApiError) as caught:
            call()
        assert (caught.value.status, caught.value.slug) == (404, "encoder-not-found")


def test_the_generation_survives_a_restart(service: Service, tuned: str) -> None:
    service.client.activate(tuned)
    digest = service.client.active_encoder().encoder.digest
    copy = service.settings.data_dir.with_name("copy")
    copy_tree(service.settings.data_dir, copy)
    with running(service.settings.model_copy(update={"data_dir": copy})) as again:
        active = again.client.active_encoder()
        assert (active.encoder.digest, active.encoder.generation) == (digest, 2)
        wait_until(lambda: {e.record.name for e in again.parts.pool.resident()} == {"base", tuned})
        assert again.client.rollback().swap.load_ms == 0


@pytest.mark.parametrize("lost", ["", "adiabat.json", "delta.safetensors", "probes.npy"])
def test_a_lost_artifact_starts_the_service_on_the_base_and_says_so(service: Service, tuned: str, lost: str) -> None:
    service.client.activate(tuned)
    copy = service.settings.data_dir.with_name("copy")
    copy_tree(service.settings.data_dir, copy)
    artifact = copy / "artifacts" / "tuned@1"
    if lost:
        (artifact / lost).unlink()
    else:
        shutil.rmtree(artifact)
    with running(service.settings.model_copy(update={"data_dir": copy})) as again:
        ready = again.client.ready()
        assert ready.status == "ready"
        assert ready.encoder.name == "base"
        assert "tuned@1 could not be loaded" in ready.notes[0]
        assert again.client.search("water").encoder.generation == 3
        assert again.client.encoder("tuned@1").state == "broken"


@pytest.mark.parametrize("settings", [{"query_cache_bytes": 0}], indirect=True, ids=["without the query cache"])
def test_no_request_fails_waits_or_mixes_encoders_while_switching(
    service: Service, tuned: str, tiny: Path, sources: Path
) -> None:
    """Every score is recomputed from the stored vector and the encoder that the response names."""
    truth = {"base": SentenceTransformer(str(tiny)), tuned: SentenceTransformer(str(sources / "tuned"))}
    vectors = {
        name: dict(zip(QUERIES, model.encode(list(QUERIES), prompt_name="query"), strict=True))
        for name, model in truth.items()
    }
    stored = {p.passage.id: p.vector for p in service.parts.store.fetch([p["id"] for p in PASSAGES], with_vectors=True)}
    for query in QUERIES:  # else the test could not tell them apart
        assert max(abs(float((vectors["base"][query] - vectors[tuned][query]) @ v)) for v in stored.values()) > 1e-2
    done = threading.Event()

    def searching(query: str) -> list[tuple[str, int]]:
        seen = []
        with AdiabatClient(service.url, retries=0) as client:
            while not done.is_set():
                answer = client.search(query)
                name = answer.encoder.name
                for hit in answer.hits:
                    expected = float(np.dot(vectors[name][query], stored[hit.id]))
                    assert hit.score == pytest.approx(expected, abs=1e-4)
                seen.append((name, answer.encoder.generation))
        return seen

    with ThreadPoolExecutor(8) as clients:
        futures = [clients.submit(searching, QUERIES[n % len(QUERIES)]) for n in range(8)]
        try:
            for n in range(60):
                service.client.activate(tuned if n % 2 == 0 else "base")
        finally:
            done.set()
        seen = [answer for future in futures for answer in future.result()]
    assert {name for name, _ in seen} == {"base", tuned}
    assert all((name == tuned) == (generation % 2 == 0) for name, generation in seen)
    assert service.client.active_encoder().encoder.generation == 61


def test_concurrent_conflicting_switches_end_in_one_history_without_gaps(service: Service, tuned: str) -> None:
    def switch(n: int) -> None:
        with AdiabatClient(service.url, retries=0) as client:
            client.activate(tuned if n % 2 else "base")

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(switch, range(40)))
    history = service.client.history()
    assert [item.generation for item in history] == list(range(len(history), 0, -1))
    assert all(a.encoder != b.encoder for a, b in pairwise(history))
    active = service.client.active_encoder().encoder
    assert f"{active.name}@{active.version}" == history[0].encoder
