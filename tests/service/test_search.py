"""Batches, comparisons and cursors of `/search`, with two encoders that rank differently."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from app.client import AdiabatClient, ApiError
from tests.conftest import Service
from tests.service import encoders

WORDS = ["water", "pump", "oil", "filter", "engine", "repair", "heart", "pain", "night", "sleep", "light", "fire"]
PASSAGES = [{"id": f"p{n}", "text": f"{WORDS[n % 12]} and {WORDS[n * 5 % 11]} {n}"} for n in range(40)]
QUERIES = ["engine repair", "pain in the heart", "water"]


@pytest.fixture
def tuned(service: Service, tiny: Path, sources: Path) -> str:
    service.client.upsert_passages(PASSAGES)
    folder = encoders.near(tiny, sources / "tuned", scale=0.1)
    return str(service.client.register_encoder("tuned", path=str(folder), force=True).name)


def test_a_batch_answers_as_single_searches_do(client: AdiabatClient, tuned: str) -> None:
    asked = [f"{query} {n}" for n in range(4) for query in QUERIES]
    batch = client.search_batch(asked, limit=3, exact=True, with_query_vector=True)
    assert batch.encoder.name == "base"
    for query, result in zip(asked, batch.results, strict=True):
        single = client.search(query, limit=3, exact=True, with_query_vector=True)
        assert [hit.id for hit in result.hits] == [hit.id for hit in single.hits]
        np.testing.assert_allclose(result.query_vector, single.query_vector, atol=1e-5)
    other = client.search_batch(asked, limit=3, encoder=tuned)
    assert (other.encoder.name, other.encoder.generation) == (tuned, None)
    assert [r.hits for r in other.results] != [r.hits for r in batch.results]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"queries": []}, "queries"),
        ({"queries": ["x"] * 257}, "queries"),
        ({"queries": ["fine", "  "]}, "queries[1]"),
        ({"queries": ["x"] * 100, "limit": 101}, "limit"),
        ({"queries": ["x"], "query": "x"}, "query"),
    ],
)
def test_a_batch_that_cannot_be_served_is_refused_by_name(
    unchanged: Service, body: dict[str, object], field: str
) -> None:
    answer = httpx.post(f"{unchanged.url}/search/batch", json=body, trust_env=False)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(field)


def test_a_comparison_ranks_every_hit_with_the_other_encoder(client: AdiabatClient, tuned: str) -> None:
    ours = client.search("engine repair", limit=5, exact=True, encoder=tuned, compare_to="base")
    theirs = [hit.id for hit in client.search("engine repair", limit=40, exact=True).hits]
    mine = [hit.id for hit in ours.hits]
    assert mine == [hit.id for hit in client.search("engine repair", limit=5, exact=True, encoder=tuned).hits]
    assert [hit.compared_rank for hit in ours.hits] == [theirs.index(each) + 1 for each in mine]
    assert [hit.new for hit in ours.hits] == [each not in theirs[:5] for each in mine]
    assert any(hit.new for hit in ours.hits)
    compared = ours.compared_to
    assert compared is not None
    assert (compared.encoder.name, compared.depth) == ("base", 100)
    assert [hit.id for hit in compared.lost] == [each for each in theirs[:5] if each not in mine]
    assert [hit.compared_rank for hit in compared.lost] == [theirs.index(hit.id) + 1 for hit in compared.lost]


def test_pages_stay_on_the_encoder_and_generation_of_the_first_one(client: AdiabatClient, tuned: str) -> None:
    whole = [hit.id for hit in client.search("engine repair", limit=40, exact=True).hits]
    page = client.search("engine repair", limit=16, exact=True)
    seen = [hit.id for hit in page.hits]
    client.activate(tuned)
    while page.next_cursor:
        page = client.search("engine repair", limit=16, exact=True, cursor=page.next_cursor)
        assert (page.encoder.name, page.encoder.generation) == ("base", 1)
        seen += [hit.id for hit in page.hits]
    assert seen == whole
    assert client.search("engine repair").encoder.generation == 2


def test_a_cursor_of_another_search_or_none_at_all_is_refused(client: AdiabatClient, tuned: str) -> None:
    cursor = client.search("engine repair", limit=4).next_cursor
    for given in (
        {"query": "something else", "cursor": cursor},
        {"query": "engine repair", "cursor": cursor, "exact": True},
        {"query": "engine repair", "cursor": cursor, "encoder": tuned},
        {"query": "engine repair", "cursor": cursor, "offset": 4},
        {"query": "engine repair", "cursor": "not a cursor"},
        {"query": "engine repair", "cursor": "W10"},
        {"query": "engine repair", "cursor": cursor, "compare_to": tuned},
    ):
        with pytest.raises(ApiError, match=r"cursor|compare_to") as refused:
            client.search(**given)  # type: ignore[arg-type]
        assert refused.value.status == 422
    assert client.search("engine repair", cursor=cursor, limit=8).hits  # another page length is fine


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "/search?q=x&limti=3", None, "limti: is no parameter of this call; did you mean 'limit'?"),
        ("GET", "/passages/count?when=3", None, "when: is no parameter of this call; what is taken: filter"),
        ("GET", "/version?x=1", None, "x: is no parameter of this call; it takes none in its address"),
        ("GET", "/search?query=x", None, "query: is no parameter of this call; did you mean 'q'?"),
        ("POST", "/search", '{"q": "x"}', "q: is not known here; did you mean 'query'?"),
        ("POST", "/search", '{"query": "x", "lmit": 3}', "lmit: is not known here; did you mean 'limit'?"),
        ("POST", "/passages", '{"passages": [{"id": "1", "text": "a", "ttl": "b"}]}', "passages.0.ttl: is not known h"),
        ("POST", "/passages/delete", '{"all": true}', "all: is not known here; what is taken: filter, ids"),
        ("POST", "/search", '{"query": "x",}', "body: is not JSON (Expecting property name enclosed in double quotes"),
        ("POST", "/search", '{"query": "x",}', "at character 15)"),
    ],
)
def test_what_is_misspelt_does_not_pass_in_silence(
    unchanged: Service, method: str, path: str, body: str | None, said: str
) -> None:
    headers = {"Content-Type": "application/json"} if body else {}
    answer = httpx.request(method, f"{unchanged.url}{path}", content=body, headers=headers, trust_env=False)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert [*answer.json()["errors"][0]] == ["field", "problem"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "/serch", 404, "There is no POST /serch; did you mean /search? GET /docs lists every call."),
        ("GET", "/encoders/a/b", 404, "There is no GET /encoders/a/b; names hold no slash, and GET /docs lists every"),
        ("POST", "/search/bacth", 404, "There is no POST /search/bacth; did you mean /search/batch? GET /docs"),
        (
            "GET",
            "/tuning-jobs/a/evnts",
            404,
            "There is no GET /tuning-jobs/a/evnts; did you mean /tuning-jobs/a/events?",
        ),
        ("GET", "/health", 404, "There is no GET /health; did you mean /health/live or /health/ready? GET /docs"),
        (
            "GET",
            "/console",
            404,
            "There is no GET /console; did you mean /console/data or /console/encoders? GET /docs",
        ),
        ("GET", "/nothing-of-it", 404, "There is no GET /nothing-of-it; GET /docs lists every call."),
        ("PUT", "/search", 405, "/search takes GET and POST, not PUT; GET /docs lists every call."),
        ("PATCH", "/encoders/base", 405, "/encoders/base takes DELETE and GET, not PATCH; GET /docs lists every call."),
    ],
)
def test_an_address_that_is_none_is_told_what_was_likely_meant(
    unchanged: Service, method: str, path: str, status: int, said: str
) -> None:
    answer = httpx.request(method, f"{unchanged.url}{path}", trust_env=False)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(said)
    if status == 405:
        assert answer.headers["Allow"] == {"PUT": "GET, POST", "PATCH": "DELETE, GET"}[method]
