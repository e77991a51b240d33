"""`mode` and `explain` of `/search`: by vectors, by words, by both; on Edge and on a server."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable

import httpx
import orjson
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from app.client import AdiabatClient, ApiError
from app.passages.fusion import DEPTH, RRF_K
from app.passages.lexical import LEXICAL
from app.passages.qdrant import LEXICAL_FORMAT
from app.passages.qdrant_calls import COLLECTION_ID, INDEX_SPACE
from app.settings import Settings
from app.wire.search import Mode, SearchResponse
from tests.conftest import Service, environment, running
from tests.service.test_search import PASSAGES, tuned  # noqa: F401  # a fixture

QUERY = "engines being repaired with oil"
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
ENGLISH = [each | {"metadata": {"lang": "en", "n": n}} for n, each in enumerate(PASSAGES)]


@pytest.fixture
def words(client: AdiabatClient, tuned: str) -> str:  # noqa: F811
    client.upsert_passages(ENGLISH)
    return tuned


def shown(answer: SearchResponse) -> list[tuple[str, float]]:
    return [(hit.id, round(hit.score, 5)) for hit in answer.hits]


@pytest.mark.usefixtures("words")
def test_no_mode_is_mode_dense(client: AdiabatClient, service: Service) -> None:
    plain = httpx.post(f"{service.url}/search", json={"query": QUERY}, trust_env=False).json()
    asked = client.search(QUERY, mode="dense")
    assert plain["mode"] == asked.mode == "dense"
    assert [(hit["id"], round(hit["score"], 5)) for hit in plain["hits"]] == shown(asked)
    assert "explain" not in plain["hits"][0]
    assert "explained" not in plain


def test_words_find_what_has_them_whatever_encoder_is_active(client: AdiabatClient, words: str) -> None:
    before = client.search(QUERY, mode="lexical", limit=40)
    assert {hit.id for hit in before.hits} == {
        each["id"] for each in ENGLISH if {"engine", "repair", "oil"} & set(str(each["text"]).split())
    }
    vectors = client.search(QUERY, limit=40)
    client.activate(words)
    after = client.search(QUERY, mode="lexical", limit=40)
    assert shown(after) == shown(before)
    assert shown(client.search(QUERY, limit=40)) != shown(vectors)
    assert after.mode == "lexical"
    assert client.search("?!", mode="lexical").hits == []


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize("name", ["base", "tuned"])
def test_hybrid_is_both_fused_and_explain_tells_of_what(client: AdiabatClient, name: str) -> None:
    answer = client.search(QUERY, mode="hybrid", limit=40, encoder=name, exact=True, explain=True)
    dense = client.search(QUERY, limit=40, encoder=name, exact=True).hits
    lexical = client.search(QUERY, mode="lexical", limit=40).hits
    base = client.search(QUERY, limit=40, encoder="base", exact=True).hits
    assert answer.explained is not None
    assert (answer.encoder.name, answer.explained.base.name) == (name, "base")
    assert (answer.explained.depth, answer.explained.lexical) == (DEPTH, True)
    assert len(answer.hits) == 40
    for hit in answer.hits:
        assert hit.explain is not None
        expected = 0.0
        for place, ranking in ((hit.explain.dense, dense), (hit.explain.lexical, lexical), (hit.explain.base, base)):
            at = next((rank for rank, other in enumerate(ranking, 1) if other.id == hit.id), None)
            assert (None if place is None else place.rank) == at
            if place is not None:
                assert place.score == pytest.approx(ranking[place.rank - 1].score, abs=1e-5)
                expected += 0 if ranking is base else 1 / (RRF_K + place.rank)
        assert hit.score == pytest.approx(expected, abs=1e-6)
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    if name == "tuned":
        assert any(hit.explain and hit.explain.dense != hit.explain.base for hit in answer.hits)


def test_every_mode_can_be_explained(client: AdiabatClient, words: str) -> None:
    client.activate(words)
    for mode in MODES:
        plain = client.search(QUERY, mode=mode, limit=5)
        told = client.search(QUERY, mode=mode, limit=5, explain=True)
        assert shown(told) == shown(plain)
        for rank, hit in enumerate(told.hits, 1):
            assert hit.explain is not None
            assert hit.explain.dense is not None
            assert hit.explain.base is not None
            if mode != "hybrid":
                own = getattr(hit.explain, mode)
                assert (own.rank, own.score) == (rank, pytest.approx(hit.score, abs=1e-6))


@pytest.mark.usefixtures("words")
def test_highlights_come_when_they_are_asked_for(client: AdiabatClient) -> None:
    for mode in MODES:
        for hit in client.search(QUERY, mode=mode, limit=40, highlight=True).hits:
            marked = {hit.text[start:end] for start, end in hit.highlights or ()}
            assert marked == {"engine", "repair", "oil"} & set(hit.text.split())
    assert client.search(QUERY, mode="lexical", limit=1).hits[0].highlights is None


@pytest.mark.parametrize("mode", MODES)
def test_batches_filters_pages_and_get_are_of_the_mode(
    client: AdiabatClient, service: Service, words: str, mode: Mode
) -> None:
    asked = [QUERY, "the pain of hearts", "light and fire at night"]
    few = {"must": [{"key": "n", "range": {"lt": 25}}]}
    batch = client.search_batch(asked, mode=mode, limit=5, filter=few, exact=True)
    assert batch.mode == mode
    singles = [client.search(query, mode=mode, limit=5, filter=few, exact=True) for query in asked]
    for result, single in zip(batch.results, singles, strict=True):
        assert {hit.id for hit in result.hits} == {hit.id for hit in single.hits} != set()
        assert all(int(hit.metadata["n"]) < 25 for hit in single.hits)
    whole = client.search(QUERY, mode=mode, limit=30, exact=True)
    page = client.search(QUERY, mode=mode, limit=4, exact=True)
    paged = shown(page)
    client.activate(words)
    while page.next_cursor:
        page = client.search(QUERY, mode=mode, limit=4, exact=True, cursor=page.next_cursor)
        paged += shown(page)
    assert paged[:30] == shown(whole)
    params = {"q": QUERY, "mode": mode, "limit": 30, "encoder": "base", "exact": "true"}
    if mode == "lexical":
        del params["encoder"]
    by_address = httpx.get(f"{service.url}/search", params=params, trust_env=False).json()
    assert [hit["id"] for hit in by_address["hits"]] == [hit.id for hit in whole.hits]
    best = whole.hits[0].score
    over = client.search(QUERY, mode=mode, limit=30, exact=True, score_threshold=best * 0.9, encoder=None)
    assert all(hit.score >= best * 0.9 for hit in over.hits)


def test_a_comparison_in_hybrid_compares_fused_ranks(client: AdiabatClient, words: str) -> None:
    answer = client.search(QUERY, mode="hybrid", limit=5, exact=True, encoder=words, compare_to="base", explain=True)
    theirs = [hit.id for hit in client.search(QUERY, mode="hybrid", limit=40, exact=True, encoder="base").hits]
    assert [hit.compared_rank for hit in answer.hits] == [theirs.index(hit.id) + 1 for hit in answer.hits]
    assert all(hit.explain is not None for hit in answer.hits)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"mode": "sparse"}, "mode"),
        ({"mode": "lexical", "encoder": "base"}, "encoder"),
        ({"mode": "lexical", "compare_to": "base"}, "compare_to"),
        ({"mode": "lexical", "with_query_vector": True}, "with_query_vector"),
        ({"mode": "hybrid", "limit": 501}, "limit"),
        ({"mode": "lexical", "limit": 400, "offset": 101}, "limit"),
        ({"explain": True, "limit": 10, "offset": 491}, "limit"),
    ],
)
def test_what_a_mode_has_no_place_for_is_refused_by_name(
    unchanged: Service, body: dict[str, object], field: str
) -> None:
    answer = httpx.post(f"{unchanged.url}/search", json={"query": "water"} | body, trust_env=False)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(field)
    batch = {key: value for key, value in body.items() if key in ("mode", "encoder", "limit", "with_query_vector")}
    if len(batch) == len(body):
        answer = httpx.post(f"{unchanged.url}/search/batch", json={"queries": ["water"]} | batch, trust_env=False)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(field)


@pytest.mark.usefixtures("words")
def test_a_cursor_of_another_mode_is_refused(client: AdiabatClient) -> None:
    cursor = client.search(QUERY, mode="hybrid", limit=4).next_cursor
    assert cursor is not None
    with pytest.raises(ApiError, match="cursor: belongs to another search"):
        client.search(QUERY, cursor=cursor, limit=4)


Old = Callable[[], Settings]


@pytest.fixture(params=["edge", "qdrant"])
def old(request: pytest.FixtureRequest, settings: Settings) -> Old:
    """Settings of a service whose passages were stored before there were words."""

    def making() -> Settings:
        with running(settings) as service:
            service.client.upsert_passages(ENGLISH)
        root = settings.passages_dir
        current = orjson.loads((root / "CURRENT").read_bytes())
        if request.param == "edge":
            shard = edge.EdgeShard.load(str(root / current["shard"]))
            shard.update(edge.UpdateOperation.delete_vector_name(LEXICAL))
            shard.flush()
            shard.close()
            del current["lexical"]
            (root / "CURRENT").write_bytes(orjson.dumps(current))
            return settings
        url = request.getfixturevalue("qdrant")
        name = f"adiabat_test_{uuid.uuid4().hex[:12]}"
        client = QdrantClient(url=url, check_compatibility=False)
        client.create_collection(
            name,
            vectors_config={
                "dense": models.VectorParams(size=current["index_space"]["dimension"], distance=models.Distance.DOT)
            },
            metadata={INDEX_SPACE: current["index_space"], COLLECTION_ID: uuid.uuid4().hex},
        )
        client.close()
        at_server = settings.model_copy(update={"qdrant_url": url, "collection": name})
        with running(at_server) as service:
            service.client.upsert_passages(ENGLISH)
        return at_server

    return making


def add_lexical(settings: Settings, *options: str) -> str:
    command = [sys.executable, "-m", "app.cli", "store", "add-lexical", *options]
    ended = subprocess.run(
        command, env=os.environ | environment(settings), capture_output=True, text=True, timeout=120, check=True
    )
    return ended.stdout


def test_passages_from_before_words_are_given_them_and_embedded_no_second_time(old: Old) -> None:
    settings = old()
    with running(settings) as service:
        dense = shown(service.client.search(QUERY, exact=True))
        for mode in ("lexical", "hybrid"):
            with pytest.raises(ApiError, match="adiabat store add-lexical") as refused:
                service.client.search(QUERY, mode=mode)
            assert (refused.value.status, refused.value.slug) == (409, "no-lexical-side")
        explained = service.client.search(QUERY, explain=True)
        assert explained.explained is not None
        assert not explained.explained.lexical
        assert explained.hits[0].explain is not None
        assert explained.hits[0].explain.lexical is None
    assert f"the words of {len(ENGLISH)} passages can be searched now" in add_lexical(settings)
    assert orjson.loads(add_lexical(settings, "--json")) == {"passages": len(ENGLISH), "added": False}
    with running(settings) as service:
        assert shown(service.client.search(QUERY, exact=True)) == dense
        assert len(service.client.search(QUERY, mode="lexical", limit=40).hits) > 5
        assert len(service.client.search(QUERY, mode="hybrid", limit=40).hits) == 40
        assert service.client.upsert_passages(ENGLISH).unchanged == len(ENGLISH)


def test_new_collections_have_words_from_the_start(settings: Settings, qdrant: str) -> None:
    at_server = settings.model_copy(
        update={"qdrant_url": qdrant, "collection": f"adiabat_test_{uuid.uuid4().hex[:12]}"}
    )
    with running(at_server) as service:
        service.client.upsert_passages(ENGLISH)
        found = service.client.search(QUERY, mode="hybrid", limit=40)
        assert len(found.hits) == 40
        assert service.client.search(QUERY, mode="lexical").hits
        assert service.client.count_passages() == len(ENGLISH)
    client = QdrantClient(url=qdrant, check_compatibility=False)
    assert (client.get_collection(at_server.collection).config.metadata or {})[LEXICAL_FORMAT] == 1
    client.close()


@pytest.mark.usefixtures("words")
def test_the_command_line_searches_in_every_mode(service: Service) -> None:
    def run(*options: str) -> str:
        command = [sys.executable, "-m", "app.cli", "search", QUERY, "--url", service.url, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert "words alone;" in run("--mode", "lexical")
    explained = run("--mode", "hybrid", "--explain", "--limit", "3")
    assert "words and base@1, generation 1;" in explained
    assert "vectors  words  base" in explained
    assert orjson.loads(run("--mode", "hybrid", "--json"))["mode"] == "hybrid"
