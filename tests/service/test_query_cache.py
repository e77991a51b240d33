"""The query cache on the real app: every door uses it, and nobody is answered with another encoder's vector."""

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.client import AdiabatClient
from app.encoders.query_cache import QueryCache
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.service import encoders
from tests.service.test_observability import scrape, value

PASSAGES = [{"id": f"p{n}", "text": text} for n, text in enumerate(("the water pump", "pain at night", "repair"))]
QUERIES = ("engine repair cost", "heart pain treatment", "wie funktioniert der filter", "what is sleep")
SECRET = "my secret illness"

Vectors = dict[str, NDArray[np.float32]]


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False) as opened:
        yield opened


def cache_of(service: Service) -> QueryCache:
    return service.parts.slot.current.encoder.cache


def truth(folder: Path) -> Vectors:
    model = SentenceTransformer(str(folder))
    return dict(zip(QUERIES, model.encode(list(QUERIES), prompt_name="query"), strict=True))


def vector(client: AdiabatClient, query: str, encoder: str | None = None) -> NDArray[np.float32]:
    return np.asarray(client.search(query, encoder=encoder, with_query_vector=True).query_vector, dtype=np.float32)


def test_every_door_for_queries_finds_what_another_one_kept(service: Service, http: httpx.Client) -> None:
    service.client.upsert_passages(PASSAGES)
    cache = cache_of(service)
    first = vector(service.client, QUERIES[0])
    assert (cache.hits, cache.misses) == (0, 1)
    http.get("/search", params={"q": QUERIES[0]}).raise_for_status()
    batch = http.post("/search/batch", json={"queries": [QUERIES[0], QUERIES[1]], "with_query_vector": True}).json()
    openai = http.post("/v1/embeddings", json={"model": "active", "input": list(QUERIES[:2])}).json()
    compared = http.post("/search", json={"query": QUERIES[0], "compare_to": "base@1"})
    compared.raise_for_status()
    assert (cache.hits, cache.misses) == (6, 2)
    for kept in (batch["results"][0]["query_vector"], openai["data"][0]["embedding"]):
        np.testing.assert_array_equal(np.asarray(kept, dtype=np.float32), first)


def test_no_switch_is_answered_with_another_encoders_vector(service: Service, tiny: Path, sources: Path) -> None:
    """Eight clients ask the same four queries throughout: every answer's vector is compared with the one recomputed."""
    folder = encoders.near(tiny, sources / "tuned", scale=0.1)
    service.client.register_encoder("tuned", path=str(folder), force=True)
    service.client.upsert_passages(PASSAGES)
    expected = {"base": truth(tiny), "tuned": truth(folder)}
    for query in QUERIES:  # else the test could not tell them apart
        assert np.abs(expected["base"][query] - expected["tuned"][query]).max() > 1e-2
    done = threading.Event()

    def searching(first: int) -> set[str]:
        seen = set()
        with AdiabatClient(service.url, retries=0) as client:
            while not done.is_set():
                answer = client.search(QUERIES[first % 4], with_query_vector=True)
                right = expected[answer.encoder.name][QUERIES[first % 4]]
                np.testing.assert_allclose(answer.query_vector, right, atol=1e-5)
                seen.add(answer.encoder.name)
        return seen

    with ThreadPoolExecutor(8) as clients:
        futures = [clients.submit(searching, number) for number in range(8)]
        try:
            for number in range(40):
                service.client.activate("base" if number % 2 else "tuned")
        finally:
            done.set()
        assert {name for future in futures for name in future.result()} == {"base", "tuned"}
    cache = cache_of(service)
    assert len(cache) == 2 * len(QUERIES)
    assert cache.hits > 10 * cache.misses


def test_another_encoder_of_the_same_name_gets_vectors_of_its_own(service: Service, tiny: Path, sources: Path) -> None:
    """Other weights, then the same weights with another prompt; by name alone the newest version answers."""
    folder = sources / "bees"
    for round_, change in enumerate((_weights, _other_weights, _other_prompt)):
        change(tiny, folder)
        service.client.register_encoder("bees", path=str(folder), force=True)
        if round_ == 2:
            service.client.delete_encoder("bees@1")
        expected = truth(folder)
        for _ in range(2):  # the second time from the cache
            for query in QUERIES:
                np.testing.assert_allclose(vector(service.client, query, "bees"), expected[query], atol=1e-5)
    cache = cache_of(service)
    assert (cache.hits, cache.misses) == (3 * len(QUERIES), 3 * len(QUERIES))


def _weights(tiny: Path, folder: Path) -> None:
    encoders.near(tiny, folder, scale=0.1)


def _other_weights(tiny: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    encoders.near(tiny, folder, scale=0.1, seed=2)


def _other_prompt(_: Path, folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"prompts": {"query": "what is the cost of ", "document": "passage: "}}))


def test_a_deleted_encoder_that_is_registered_again_is_right_at_once(
    service: Service, tiny: Path, sources: Path
) -> None:
    folder = encoders.near(tiny, sources / "bees", scale=0.1)
    service.client.register_encoder("bees", path=str(folder), force=True)
    before = vector(service.client, QUERIES[0], "bees")
    service.client.delete_encoder("bees@1")
    service.client.register_encoder("bees", path=str(folder), force=True)
    np.testing.assert_array_equal(vector(service.client, QUERIES[0], "bees@2"), before)
    np.testing.assert_allclose(before, truth(folder)[QUERIES[0]], atol=1e-5)


def test_the_figures_tell_hits_misses_entries_and_bytes_and_no_text(
    service: Service, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            service.client.search(SECRET)
    wait_until(lambda: value(scrape(http), "adiabat_batch_texts_sum") == 1)
    found = scrape(http)
    assert value(found, "adiabat_query_cache_hits_total") == 2
    assert value(found, "adiabat_query_cache_misses_total") == 1
    assert value(found, "adiabat_query_cache_entries") == 1
    assert 100 < value(found, "adiabat_query_cache_bytes") < 1_000
    assert "secret" not in http.get("/metrics").text + caplog.text
    assert b"secret" not in b"".join(key + row for key, row in cache_of(service)._rows.items())


def test_one_setting_turns_it_off(settings: Settings) -> None:
    off = settings.model_copy(update={"query_cache_bytes": 0})
    with running(off) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        for _ in range(3):
            service.client.search(QUERIES[0])
        wait_until(lambda: value(scrape(http), "adiabat_batch_texts_sum") == 3)
        found = scrape(http)
        for name in ("hits_total", "misses_total", "entries", "bytes"):
            assert value(found, f"adiabat_query_cache_{name}") == 0
