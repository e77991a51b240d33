"""`/passages` beyond upserting: filters on pages, counts and deletions, and what is on disk when it is said to be."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.passages.edge import EdgeStore
from tests.conftest import Service

GERMAN = {"must": [{"key": "lang", "match": {"value": "de"}}]}


PASSAGES = [
    {"id": f"p{n:02}", "text": f"water pump {n}", "metadata": {"lang": "de" if n % 3 == 0 else "en", "n": n}}
    for n in range(12)
]


@pytest.fixture(scope="module")
def http(unchanged: Service) -> Iterator[httpx.Client]:
    unchanged.client.upsert_passages(PASSAGES)
    with httpx.Client(base_url=unchanged.url, trust_env=False, timeout=30) as opened:
        yield opened


@pytest.fixture
def own(service: Service) -> Iterator[httpx.Client]:
    """To a service of the test's own, which it may change."""
    service.client.upsert_passages(PASSAGES)
    with httpx.Client(base_url=service.url, trust_env=False, timeout=30) as opened:
        yield opened


def test_pages_and_counts_obey_a_filter(http: httpx.Client) -> None:
    params: dict[str, Any] = {"filter": json.dumps(GERMAN), "limit": 3}
    first = http.get("/passages", params=params).json()
    rest = http.get("/passages", params=params | {"cursor": first["next_cursor"]}).json()
    assert {p["id"] for p in first["passages"] + rest["passages"]} == {"p00", "p03", "p06", "p09"}
    assert (len(first["passages"]), rest.get("next_cursor")) == (3, None)
    assert http.get("/passages/count", params={"filter": json.dumps(GERMAN)}).json() == {"count": 4}
    assert http.get("/passages/count").json() == {"count": 12}


def test_pages_have_the_stored_vectors_where_they_are_asked_for(unchanged: Service, http: httpx.Client) -> None:
    [first] = unchanged.client.passages(limit=1, with_vectors=True).passages
    [stored] = unchanged.parts.store.fetch([first.id], with_vectors=True)
    assert first.vector == stored.vector.tolist()
    assert (first.text, first.metadata) == (stored.passage.text, stored.passage.metadata)
    answer = http.get("/passages", params={"limit": 100}).json()
    assert set(answer["passages"][0]) == {"id", "text", "title", "metadata"}
    assert answer["next_cursor"] is None


@pytest.mark.parametrize(
    ("path", "params", "word"),
    [
        ("/passages", {"filter": "[1"}, "filter: is not JSON"),
        ("/passages/count", {"filter": "[]"}, "filter: is not an object"),
        ("/passages", {"filter": '{"must": [{"kee": 1}]}'}, "kee"),
        ("/passages", {"cursor": "x"}, "cursor"),
        ("/passages", {"limit": "0"}, "limit"),
        ("/passages/count", {"limit": "3"}, "limit"),
    ],
)
def test_a_bad_parameter_is_named(http: httpx.Client, path: str, params: dict[str, str], word: str) -> None:
    answer = http.get(path, params=params)
    assert answer.status_code == 422
    assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    "filter",
    [
        {},
        {"must": []},
        {"must": [{"must": []}, {"should": [{"must_not": []}]}]},
        {"min_should": {"conditions": GERMAN["must"], "min_count": 0}},
    ],
)
def test_a_filter_that_says_nothing_deletes_nothing(http: httpx.Client, filter: dict[str, Any]) -> None:
    answer = http.post("/passages/delete", json={"filter": filter})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:adiabat:problem:invalid-field")
    assert http.get("/passages/count").json() == {"count": 12}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"filter": GERMAN}, 8),
        ({"filter": {"must_not": GERMAN["must"]}}, 4),
        ({"filter": {"must": [{"should": [{"key": "n", "range": {"lt": 2}}]}]}}, 10),
        ({"filter": {"min_should": {"conditions": GERMAN["must"], "min_count": 1}}}, 8),
        ({"ids": ["p01", "p01", "p02", "nobody"]}, 10),
    ],
)
def test_deletion_takes_what_ids_or_filter_name_and_counts_it(
    own: httpx.Client, body: dict[str, Any], left: int
) -> None:
    assert own.post("/passages/delete", json=body).json() == {"deleted": 12 - left}
    assert own.get("/passages/count").json() == {"count": left}


@pytest.mark.parametrize("body", [{}, {"ids": ["a"], "filter": GERMAN}, {"ids": []}, {"ids": [""]}])
def test_a_deletion_names_either_ids_or_a_filter(http: httpx.Client, body: dict[str, Any]) -> None:
    assert http.post("/passages/delete", json=body).status_code == 422


def test_durable_and_streamed_writes_are_on_disk_when_answered(own: httpx.Client, service: Service) -> None:
    store = service.parts.store
    assert isinstance(store, EdgeStore)
    moved = {"id": "p00", "text": "water pump 0", "metadata": {"lang": "fr"}}
    bodies = (
        {"json": {"passages": [moved | {"text": "another"}], "durable": True}},
        {"json": {"passages": [moved | {"text": "another", "metadata": {}}], "durable": True}},  # metadata alone
        {"content": json.dumps(moved), "headers": {"content-type": "application/x-ndjson"}},
    )
    for body in bodies:
        assert own.post("/passages", **body).is_success  # type: ignore[arg-type]
        assert store._flusher._synced == store._flusher._written
