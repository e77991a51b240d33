"""`group_by` of `/search`: on Edge and on a server, in every mode."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.client import AdiabatClient
from app.settings import Settings
from app.wire.search import Mode, SearchResponse
from tests.conftest import Service, running
from tests.service.test_search import PASSAGES

QUERY = "engines being repaired with oil"
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
FILED = [
    each | {"metadata": {"lang": "en", "n": n, "doc": {"id": f"d{n % 7}"}, "shelf": [n % 3, n % 5 + 10]}}
    for n, each in enumerate(PASSAGES)
]
LOOSE = {"id": "loose", "text": "engine repair with oil, filed nowhere", "metadata": {"lang": "en", "n": 99}}
FEW: Any = {"must": [{"key": "n", "range": {"lt": 25}}]}


@pytest.fixture(params=["edge", "qdrant"])
def filed(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Service]:
    if request.param == "qdrant":
        at = {"qdrant_url": request.getfixturevalue("qdrant"), "collection": f"adiabat_test_{uuid.uuid4().hex[:12]}"}
        settings = settings.model_copy(update=at)
    with running(settings.model_copy(update={"query_log": 1})) as service:
        service.client.upsert_passages([*FILED, LOOSE])
        yield service


def told(answer: SearchResponse) -> list[tuple[str | int, list[str]]]:
    assert answer.groups is not None
    return [(each.id, [hit.id for hit in each.hits]) for each in answer.groups]


def by_hand(client: AdiabatClient, size: int, **asked: Any) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for hit in client.search(QUERY, limit=100, exact=True, **asked).hits:
        if hit.id != "loose":
            groups.setdefault(hit.metadata["doc"]["id"], []).append(hit.id)
    return [(value, ids[:size]) for value, ids in groups.items()]


def test_the_best_groups_come_first_each_with_its_best_hits(filed: Service) -> None:
    client = filed.client
    for mode in MODES:
        asked: dict[str, Any] = {"mode": mode, "filter": FEW}
        whole = by_hand(client, 100, **asked)
        assert len(whole) >= 5, "there must be something to group"
        answer = client.search(QUERY, group_by="doc.id", limit=3, group_size=2, exact=True, **asked)
        assert told(answer) == by_hand(client, 2, **asked)[:3]
        assert answer.hits == []
        assert answer.mode == mode
        every = client.search(QUERY, group_by="doc.id", limit=100, exact=True, **asked)
        assert told(every) == by_hand(client, 3, **asked)
        scores = [hit.score for hit in client.search(QUERY, limit=100, exact=True, **asked).hits]
        asked["score_threshold"] = (scores[2] + scores[3]) / 2
        over = client.search(QUERY, group_by="doc.id", limit=100, exact=True, **asked)
        assert told(over) == by_hand(client, 3, **asked)
        assert over.grouped_from == sum(score >= asked["score_threshold"] for score in scores)


def test_a_passage_is_in_the_group_of_each_of_its_values_and_without_one_in_none(filed: Service) -> None:
    answer = filed.client.search(QUERY, group_by="shelf", limit=100, group_size=10, exact=True)
    groups = dict(told(answer))
    assert set(groups) == {0, 1, 2, 10, 11, 12, 13, 14}
    assert answer.grouped_from == len(FILED) + 1
    assert "loose" not in {id for ids in groups.values() for id in ids}
    best = next(hit for hit in filed.client.search(QUERY, exact=True).hits if hit.id != "loose")
    assert all(groups[value][0] == best.id for value in best.metadata["shelf"])
    assert told(filed.client.search(QUERY, group_by="nowhere")) == []


@pytest.mark.parametrize("filed", ["edge"], indirect=True)
def test_groups_are_explained_marked_logged_and_told_by_address(filed: Service) -> None:
    client = filed.client
    plain = client.search(QUERY, group_by="doc.id", limit=2, mode="hybrid", exact=True)
    more = client.search(QUERY, group_by="doc.id", limit=2, mode="hybrid", exact=True, explain=True, highlight=True)
    assert told(more) == told(plain)
    for each in more.groups or ():
        for hit in each.hits:
            assert hit.explain is not None
            assert hit.explain.dense is not None
            assert {hit.text[start:end] for start, end in hit.highlights or ()} == {"engine", "repair", "oil"} & set(
                hit.text.split()
            )
    shelves = client.search(QUERY, group_by="shelf", limit=4, group_size=2, with_query_vector=True, encoder="base")
    assert shelves.query_vector
    shown = list(dict.fromkeys(id for _, ids in told(shelves) for id in ids))
    client.feedback(shelves.search_id, [(shown[2], 3)])
    assert list(filed.parts.registry.queries.find(shelves.search_id).shown) == shown
    params = {"q": QUERY, "group_by": "doc.id", "limit": 2, "mode": "hybrid", "exact": "true"}
    by_address = httpx.get(f"{filed.url}/search", params=params, trust_env=False).json()
    assert [each["id"] for each in by_address["groups"]] == [value for value, _ in told(plain)]


@pytest.mark.parametrize("filed", ["edge"], indirect=True)
def test_what_groups_cannot_be_combined_with_is_refused_by_name(filed: Service) -> None:
    cursor = filed.client.search(QUERY, limit=4).next_cursor
    for body, field in (
        ({"group_by": "doc", "cursor": cursor}, "group_by: has no pages"),
        ({"group_by": "doc", "offset": 3}, "group_by: has no pages"),
        ({"group_by": "doc", "compare_to": "base"}, "group_by: cannot be compared"),
        ({"group_by": "tags[]"}, "group_by: 'tags[]' is no field"),
        ({"group_by": ""}, "group_by: "),
        ({"group_size": 2}, "group_size: has no place without group_by"),
        ({"group_by": "doc", "group_size": 0}, "group_size: "),
        ({"group_by": "doc", "limit": 400, "group_size": 3}, "limit: 400 groups of 3"),
        ({"group_by": "doc", "limit": 400}, "limit: 400 groups of 3"),
    ):
        answer = httpx.post(f"{filed.url}/search", json={"query": QUERY, **body}, trust_env=False)
        assert answer.status_code == 422, body
        assert answer.json()["detail"].startswith(field), answer.json()
    batch = httpx.post(f"{filed.url}/search/batch", json={"queries": [QUERY], "group_by": "doc"}, trust_env=False)
    assert (batch.status_code, batch.json()["detail"].partition(":")[0]) == (422, "group_by")


@pytest.mark.parametrize("filed", ["edge"], indirect=True)
def test_the_command_line_shows_groups(filed: Service) -> None:
    filed.client.upsert_passages([{"id": "odd", "text": "engine oil", "metadata": {"odd": "[/red]"}}])

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "app.cli", "search", QUERY, "--url", filed.url, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    said = run("--group-by", "doc.id", "--limit", "2", "--group-size", "2", "--explain")
    value, ids = told(filed.client.search(QUERY, group_by="doc.id", limit=2, group_size=2))[0]
    first, second = [line.split() for line in said.splitlines()[1:3]]
    assert said.splitlines()[0].split()[:5] == ["group", "vectors", "words", "base", "score"]
    assert (first[0], first[5], second[4]) == (value, *ids)
    assert "[/red]" in run("--group-by", "odd")
    assert "no hits with that field" in run("--group-by", "nowhere")
