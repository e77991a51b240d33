"""What every call shares: problems, the key, limits; then search and passages with good and bad input."""

import errno
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.client import AdiabatClient, ApiError, Unreachable
from app.settings import Settings
from tests.conftest import Service, running

KEY = "correct horse battery"
PASSAGES = [
    {"id": "a", "text": "the water pump leaks", "title": "pump", "metadata": {"lang": "en", "year": 2020}},
    {"id": "b", "text": "die wasser pumpe", "metadata": {"lang": "de", "year": 2024}},
    {"id": "c/d e", "text": "pain in the heart", "metadata": {"lang": "en", "tags": ["x", "y"]}},
]


@pytest.fixture(scope="module")
def http(unchanged: Service) -> Iterator[httpx.Client]:
    unchanged.client.upsert_passages(PASSAGES)
    with httpx.Client(base_url=unchanged.url, trust_env=False) as opened:
        yield opened


@pytest.fixture
def own(service: Service) -> Iterator[httpx.Client]:
    """To a service of the test's own, which it may change."""
    service.client.upsert_passages(PASSAGES)
    with httpx.Client(base_url=service.url, trust_env=False) as opened:
        yield opened


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["type"]) == (status, status, f"urn:adiabat:problem:{slug}")
    assert body["detail"]
    return body


def test_search_answers_in_the_order_of_the_inner_product_with_the_query_prompt_applied(
    service: Service, tiny: Path
) -> None:
    service.client.upsert_passages(PASSAGES)
    answer = service.client.search("water pump", with_query_vector=True)
    model = SentenceTransformer(str(tiny))
    vector = model.encode(["water pump"], prompt_name="query")[0]
    assert np.allclose(answer.query_vector, vector, atol=1e-5)
    stored = {p.passage.id: p.vector for p in service.parts.store.fetch(["a", "b", "c/d e"], with_vectors=True)}
    assert np.allclose(stored["a"], model.encode(["pump\nthe water pump leaks"], prompt_name="document")[0], atol=1e-5)
    expected = sorted(stored, key=lambda key: -float(vector @ stored[key]))
    assert [hit.id for hit in answer.hits] == expected
    assert set(answer.took_ms.model_dump()) == {"encode", "search", "total"}


def test_a_body_that_is_not_read_is_refused_before_anything_happens(http: httpx.Client) -> None:
    body = problem(http.post("/active-encoder/rollback", json={"to": 1}), 422, "invalid-field")
    assert body["detail"].startswith("body: is not read by this call")
    text = problem(http.post("/search", content=b'{"query": "x"}'), 422, "invalid-field")
    assert "Content-Type: application/json" in text["detail"]
    broken = http.post("/search", content=b"{query", headers={"Content-Type": "application/json"})
    assert problem(broken, 422, "invalid-field")["errors"][0]["field"] == "body"


def test_names_that_are_none_are_refused_in_words(http: httpx.Client) -> None:
    """No pattern, no word of the validator's own."""
    encoder: dict[str, Any] = {"name": "a", "source": {"path": "x"}}
    lines = b'{"query": "x", "relevant": ["p\\t1"]}\n', {"content-type": "application/x-ndjson"}
    for answer, field in (
        (http.post("/encoders", json=encoder | {"name": "Bees and more"}), "name"),
        (http.post("/encoders", json=encoder | {"source": {"hub": "a/b/c"}}), "source.hub"),
        (http.post("/encoders", json=encoder | {"source": {"hub": "a/b", "revision": "-"}}), "source.revision"),
        (http.post("/encoders", json=encoder, headers={"Idempotency-Key": "a b"}), "idempotency-key"),
        (http.post("/tuning-jobs", json={"name": "a", "dataset": "b", "guards": ["b:de", "B:"]}), "guards.1"),
        (http.get("/datasets/Bees"), "name"),
        (http.put("/datasets/bees", content=lines[0], headers=lines[1]), "relevant"),
    ):
        said = answer.json()["detail"]
        assert answer.status_code == 422
        assert f"{field}: must be " in said.replace("Idempotency-Key", "idempotency-key"), said
        assert ", not " in said
        assert "^" not in said
        assert "[LineId]" not in said
        assert "alue error" not in said


def test_the_address_alone_leads_to_the_console_which_asks_for_the_key(settings: Settings) -> None:
    with running(settings.model_copy(update={"api_key": KEY})) as service:
        page = httpx.get(service.url, trust_env=False, follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/console/login")


def test_get_search_answers_as_post_does(http: httpx.Client) -> None:
    posted = http.post("/search", json={"query": "water", "limit": 2}).json()
    got = http.get("/search", params={"q": "water", "limit": 2}).json()
    assert got["hits"] == posted["hits"]
    assert len(got["hits"]) == 2
    german = json.dumps({"must": [{"key": "lang", "match": {"value": "de"}}]})
    assert [hit["id"] for hit in http.get("/search", params={"q": "water", "filter": german}).json()["hits"]] == ["b"]
    problem(http.get("/search", params={"q": "water", "filter": "[1"}), 422, "invalid-field")


def test_filter_threshold_offset_and_exact_are_obeyed(client: AdiabatClient) -> None:
    client.upsert_passages(PASSAGES)
    german = client.search("water", filter={"must": [{"key": "lang", "match": {"value": "de"}}]})
    assert [hit.id for hit in german.hits] == ["b"]
    everything = client.search("water", exact=True).hits
    assert client.search("water", offset=1).hits == everything[1:]
    between = (everything[0].score + everything[1].score) / 2
    assert client.search("water", score_threshold=between).hits == everything[:1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": "  \n"}, "query"),
        ({"query": "x" * 10_000}, "query"),
        ({"query": "x\ud800"}, "unicode"),
        ({}, "query"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": 1001}, "limit"),
        ({"query": "x", "limit": "many"}, "limit"),
        ({"query": "x", "offset": -1}, "offset"),
        ({"query": "x", "score_threshold": float("nan")}, "score_threshold"),
        ({"query": "x", "lmit": 3}, "lmit"),
        ({"query": "x", "filter": {"must": [{"key": "lang", "mach": 1}]}}, "filter"),
        ({"query": "x", "filter": {"must": "all"}}, "filter"),
    ],
)
def test_a_bad_search_is_422_naming_the_field(http: httpx.Client, body: dict[str, Any], field: str) -> None:
    response = http.post("/search", content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert field in response.json()["detail"]


@pytest.mark.parametrize(
    ("passages", "word"),
    [
        ([{"id": "x"}], "passages.0.text"),
        ([{"id": "x", "text": " "}], "passages[0].text"),
        ([{"id": "", "text": "t"}], "passages.0.id"),
        ([{"id": "x", "text": "t"}, {"id": "x", "text": "u"}], "passages[1].id"),
        ([{"id": "x", "text": "t" * 40_000}], "passages[0].text"),
        ([{"id": "x", "text": "t", "metadata": {"score": float("nan")}}], "passages[0].metadata.score"),
        (
            [{"id": "x", "text": "t", "metadata": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}}],
            "deep",
        ),
        ([{"id": "x", "text": "t", "metadata": {"big": "y" * 70_000}}], "passages[0].metadata"),
        ([{"id": "x", "text": "t", "metadata": {"n": 2**70}}], "passages[0].metadata.n"),
        ([{"id": "x", "text": "t\udc00"}], "passages[0].text"),
        ([{"id": "x", "text": "t", "colour": "red"}], "colour"),
        ([], "passages"),
    ],
)
def test_a_bad_passage_is_422_naming_the_field_and_nothing_is_written(
    http: httpx.Client, passages: list[dict[str, Any]], word: str
) -> None:
    good = {"id": "good", "text": "good"}
    body = json.dumps({"passages": [*passages, good] if passages else []})
    response = http.post("/passages", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert word in response.json()["detail"]
    assert http.get("/passages/count").json() == {"count": 3}


def test_only_what_changed_is_embedded_again(client: AdiabatClient, service: Service) -> None:
    client.upsert_passages(PASSAGES)
    before = service.parts.store.fetch(["a"], with_vectors=True)[0]
    changed = [
        PASSAGES[0] | {"metadata": {"lang": "en", "year": 2021}},
        PASSAGES[1],
        PASSAGES[2] | {"text": "no pain at all"},
    ]
    assert client.upsert_passages(changed).model_dump() == {"embedded": 1, "metadata_updated": 1, "unchanged": 1}
    after = service.parts.store.fetch(["a"], with_vectors=True)[0]
    assert after.passage.metadata["year"] == 2021
    assert np.array_equal(before.vector, after.vector)
    assert client.passage("c/d e").text == "no pain at all"


def test_passages_are_paged_read_and_deleted(client: AdiabatClient, own: httpx.Client) -> None:
    seen, cursor = [], None
    while True:
        page = client.passages(cursor, limit=2)
        seen += [item.id for item in page.passages]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(seen) == ["a", "b", "c/d e"]
    assert client.passage("c/d e").model_dump() == {"title": "", **PASSAGES[2]}
    assert own.delete("/passages/c%2Fd%20e").status_code == 204
    problem(own.get("/passages/c%2Fd%20e"), 404, "passage-not-found")
    problem(own.delete("/passages/c%2Fd%20e"), 404, "passage-not-found")
    problem(own.post("/passages/delete", json={"filter": {}}), 422, "invalid-field")
    assert client.delete_passages(filter={"must": [{"key": "lang", "match": {"value": "de"}}]}) == 1
    assert client.delete_passages(["a", "never there"]) == 1
    assert client.count_passages() == 0


def test_the_same_passage_from_many_hands_ends_whole(client: AdiabatClient, service: Service, tiny: Path) -> None:
    """Text, hash and vector of one writer, whoever came last."""

    def write(n: int) -> None:
        with AdiabatClient(service.url, retries=0) as own:
            metadata = {"n": n}
            own.upsert_passages([{"id": "a", "text": f"text number {n % 3}", "metadata": metadata}])

    with ThreadPoolExecutor(8) as hands:
        list(hands.map(write, range(48)))
    found = service.parts.store.fetch(["a"], with_vectors=True)[0]
    expected = SentenceTransformer(str(tiny)).encode([found.passage.text], prompt_name="document")[0]
    assert np.allclose(found.vector, expected, atol=1e-5)
    again = {"id": "a", "text": found.passage.text, "metadata": found.passage.metadata}
    assert client.upsert_passages([again]).unchanged == 1


def test_unknown_routes_and_methods_are_problems_too(http: httpx.Client) -> None:
    problem(http.get("/nothing/here"), 404, "no-such-route")
    problem(http.put("/search"), 405, "method-not-allowed")
    problem(http.post("/search", content=b"{not json"), 422, "invalid-field")
    problem(http.get("/encoders/base@" + "9" * 30), 404, "encoder-not-found")
    problem(http.put("/active-encoder", json={"name": "base", "version": 10**30}), 422, "invalid-field")
    for name, told in (("base@1", "with its version beside it"), ("Bees", "must be 1 to 64 of a-z, 0-9")):
        for body in ({"name": name}, {"canary": {"name": name, "percent": 10}}):
            assert told in problem(http.put("/active-encoder", json=body), 422, "invalid-field")["detail"]
    stale = http.put("/active-encoder", json={"name": "base"}, headers={"If-Match": "9" * 5000})
    problem(stale, 422, "invalid-field")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/version", "/"])
def test_who_only_looks_whether_it_answers_may_leave_the_body_out(http: httpx.Client, path: str) -> None:
    looked, asked = http.head(path), http.get(path)
    assert (looked.status_code, looked.content) == (200, b"")
    assert looked.headers["Content-Length"] == str(len(asked.content))
    assert "head" not in http.get("/openapi.json").json()["paths"].get(path, {})


def test_bodies_over_the_limit_are_413_whether_or_not_they_say_their_length(settings: Settings) -> None:
    small = settings.model_copy(update={"max_body_bytes": 1000, "max_archive_bytes": 3000})
    with running(small) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        body = json.dumps({"query": "x" * 2000}).encode()
        headers = {"content-type": "application/json"}
        refused = problem(http.post("/search", content=body, headers=headers), 413, "too-large")
        assert "ADIABAT_MAX_BODY_BYTES" in refused["detail"]

        def chunks() -> Iterator[bytes]:
            yield from (body[i : i + 100] for i in range(0, len(body), 100))

        problem(http.post("/search", content=chunks(), headers=headers), 413, "too-large")
        refused = problem(http.put("/datasets/d", content=body + body), 413, "too-large")
        assert "ADIABAT_MAX_ARCHIVE_BYTES" in refused["detail"]


def test_a_full_disk_says_what_is_stored(service: Service, own: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(service.parts.store), "upsert", full)
    refused = problem(own.post("/passages", json={"passages": [{"id": "n", "text": "new"}]}), 503, "unavailable")
    assert "what was acknowledged is stored" in refused["detail"]


def test_with_a_key_every_call_but_health_needs_it(settings: Settings) -> None:
    with running(settings.model_copy(update={"api_key": KEY})) as service:
        with httpx.Client(base_url=service.url, trust_env=False) as http:
            for method, path in (
                ("GET", "/search?q=x"),
                ("GET", "/passages"),
                ("GET", "/encoders"),
                ("PUT", "/active-encoder"),
            ):
                assert problem(http.request(method, path), 401, "unauthorized")
            wrong = http.get("/encoders", headers={"Authorization": "Bearer wrong"})
            assert wrong.headers["www-authenticate"] == "Bearer"
            none = http.get("/encoders")
            assert problem(wrong, 401, "unauthorized")["detail"] == none.json()["detail"]  # no hint which it is
            assert http.get("/health/live").json() == {"status": "live"}
            assert http.get("/health/ready").status_code == 200
            assert http.get("/version").status_code == 200
            described = http.get("/openapi.json").json()
            assert described["paths"]["/search"]["post"]["security"] == [{"HTTPBearer": []}]
            assert "security" not in described["paths"]["/version"]["get"]
            page = http.get("/docs")
            for needed in (page.url.path, *re.findall(r'"(/static-offline-docs/[^"]+)"', page.text)):
                assert http.get(needed).status_code == 200, needed
        assert service.client.encoders()[0].name == "base"


@pytest.mark.parametrize("credentials", ["", "Authorization: Bearer\r\n", "Authorization: Basic x\r\n"])
def test_without_the_key_not_a_byte_of_the_body_is_read(settings: Settings, credentials: str) -> None:
    with running(settings.model_copy(update={"api_key": KEY})) as service:
        kind = {"content-type": "application/json"}
        bad = httpx.post(f"{service.url}/search", content=b"{", headers=kind, trust_env=False)
        problem(bad, 401, "unauthorized")
        address = httpx.URL(service.url)
        with socket.create_connection((address.host, address.port or 0), timeout=30) as line:
            head = f"POST /search HTTP/1.1\r\nHost: x\r\n{credentials}Content-Length: 1000\r\n\r\n"
            line.sendall(head.encode())  # and no body
            assert line.recv(12) == b"HTTP/1.1 401"


def test_a_client_with_the_wrong_address_is_told_so() -> None:
    with AdiabatClient("http://127.0.0.1:9") as nobody, pytest.raises(Unreachable, match="ADIABAT_URL"):
        nobody.ready()


def test_a_refusal_reaches_the_python_client_whole(client: AdiabatClient) -> None:
    with pytest.raises(ApiError) as caught:
        client.search("x", encoder="nobody@3")
    assert (caught.value.status, caught.value.slug) == (404, "encoder-not-found")
    assert "GET /encoders" in caught.value.detail
