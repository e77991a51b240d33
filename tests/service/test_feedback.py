"""The query log and `/feedback` over HTTP: what is kept, what is refused, and that no search waits for it."""

import json
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import query_log
from app.client import AdiabatClient, ApiError
from app.settings import Settings
from app.wire.search import Mode, SearchResponse
from tests.conftest import Service, process, running, wait_until
from tests.service.keys import SERVICE_KEY
from tests.service.test_cli import adiabat
from tests.service.test_datasets import contents
from tests.service.test_tuning_jobs import passages, question

PASSAGES = 60
ON = {"query_log": 1.0}
logging = pytest.mark.parametrize("settings", [ON], indirect=True)


@pytest.fixture
def stocked(service: Service) -> Service:
    service.client.upsert_passages(passages())
    return service


def refused(service: Service, search_id: str, *clicks: tuple[str, int]) -> tuple[int, str, str]:
    with pytest.raises(ApiError) as caught:
        service.client.feedback(search_id, clicks)
    return caught.value.status, caught.value.slug, caught.value.detail


def shown(answer: SearchResponse) -> list[str]:
    return [hit.id for hit in answer.hits]


def counted(service: Service, name: str) -> list[float]:
    """Of the samples of a metric."""
    lines = [line for line in service.client.metrics().splitlines() if line.startswith(name)]
    return [float(line.rpartition(" ")[2]) for line in lines]


def test_nothing_is_kept_unless_it_is_asked_for(stocked: Service) -> None:
    answer = stocked.client.search("water pump")
    assert len(answer.search_id) == 32
    assert refused(stocked, answer.search_id, (answer.hits[0].id, 1)) == (
        409,
        "search-not-logged",
        f"The search {answer.search_id!r} is not in the query log, so nothing can be said of it: the query log is off "
        "(ADIABAT_QUERY_LOG), and which ones are kept follows from their ids.",
    )
    page = stocked.client.queries()
    assert (page.searches, page.count, page.share) == ([], 0, 0)


@logging
def test_a_search_is_kept_with_what_it_showed_and_clicks_on_it(stocked: Service) -> None:
    client = stocked.client
    filter = {"must_not": [{"has_id": ["p0"]}]}
    answer = client.search(" wasser\n pumpe ", limit=4, filter=filter, lang="de")
    ids = shown(answer)
    told = client.feedback(answer.search_id, [(ids[2], 3), (ids[0], 1)])
    assert (told.search_id, told.stored, told.repeated) == (answer.search_id, 2, 0)
    again = client.feedback(answer.search_id, [(ids[0], 1), (ids[1], 2)])
    assert (again.stored, again.repeated) == (1, 1)
    (kept,) = client.queries().searches
    assert (kept.query, kept.lang, kept.filter, kept.key) == ("wasser pumpe", "de", filter, None)
    assert (kept.encoder, kept.generation, kept.offset, kept.shown) == ("base@1", 1, 0, ids)
    assert [(click.passage_id, click.position) for click in kept.clicks] == [(ids[2], 3), (ids[0], 1), (ids[1], 2)]
    assert counted(stocked, "adiabat_clicks_total") == [3]
    assert counted(stocked, "adiabat_logged_searches_total") == [1, 0]


@logging
def test_every_page_is_a_search_of_its_own_and_positions_go_on(stocked: Service) -> None:
    client = stocked.client
    first = client.search("pump", limit=3)
    second = client.search("pump", limit=3, cursor=first.next_cursor)
    assert client.feedback(second.search_id, [(shown(second)[0], 4)]).stored == 1
    status, slug, said = refused(stocked, second.search_id, (shown(second)[0], 1))
    assert (status, slug) == (422, "invalid-field")
    assert said == f"clicks.0.position: {shown(second)[0]!r} was shown at 4, not at 1; they count from 1, over pages."
    compared = client.search("pump", limit=3, compare_to="base")
    assert client.feedback(compared.search_id, [(shown(compared)[1], 2)]).stored == 1
    got = httpx.get(f"{stocked.url}/search", params={"q": "pump", "lang": "en"}, trust_env=False).json()
    assert client.feedback(got["search_id"], [(got["hits"][0]["id"], 1)]).stored == 1
    assert [each.offset for each in client.queries().searches] == [0, 0, 3, 0]


@logging
def test_whatever_was_shown_is_taken_however_far_down(stocked: Service) -> None:
    client = stocked.client
    client.upsert_passages(
        [{"id": f"m{n}", "text": f"pump number {n}", "metadata": {"doc": n // 2}} for n in range(130)]
    )
    plain = client.search("pump", limit=150)
    assert client.feedback(plain.search_id, [(shown(plain)[-1], 150)]).stored == 1
    modes: tuple[Mode, ...] = ("dense", "hybrid")
    for mode in modes:
        grouped = client.search("pump", mode=mode, group_by="doc", limit=65, group_size=2)
        ids = [hit.id for each in grouped.groups or () for hit in each.hits]
        assert len(ids) > 100
        assert client.feedback(grouped.search_id, [(ids[-1], len(ids))]).stored == 1
    assert [each.mode for each in client.queries().searches] == ["hybrid", "dense", "dense"]


@logging
def test_what_is_no_feedback_is_refused_and_nothing_of_it_is_kept(stocked: Service) -> None:
    answer = stocked.client.search("pump", limit=3)
    ids = shown(answer)
    other = next(f"p{n}" for n in range(PASSAGES) if f"p{n}" not in ids)
    status, slug, said = refused(stocked, answer.search_id, (ids[0], 1), (other, 2))
    assert (status, slug) == (422, "invalid-field")
    assert f"clicks.1.passage_id: {other!r} is not among the 3 hits" in said
    unknown = f"{random.getrandbits(128):032x}"
    assert refused(stocked, unknown, (ids[0], 1))[:2] == (404, "search-not-found")
    good: dict[str, Any] = {"search_id": answer.search_id, "clicks": [{"passage_id": ids[0], "position": 1}]}
    for wrong, word in (
        ({"search_id": "x"}, "must be the search_id of an answer to /search"),
        ({"clicks": []}, "clicks"),
        ({"clicks": [{"passage_id": ids[0]}]}, "position"),
        ({"clicks": [{"passage_id": ids[0], "position": 0}]}, "position"),
        ({"clicks": [{"passage_id": ids[0], "position": "1"}]}, "position"),
        ({"clicks": good["clicks"] * 101}, "clicks"),
        ({"user": "me"}, "user"),
    ):
        said = httpx.post(f"{stocked.url}/feedback", json=good | wrong, trust_env=False)
        assert said.status_code == 422, said.text
        assert word in said.json()["detail"]
    assert [each.clicks for each in stocked.client.queries().searches] == [[]]


@pytest.mark.parametrize("settings", [{"query_log": 0.5}], indirect=True)
def test_which_searches_are_kept_follows_from_their_ids(stocked: Service) -> None:
    answers = [stocked.client.search(f"pump {n}", limit=1) for n in range(120)]
    kept = {each.search_id for each in stocked.client.queries(limit=1000).searches}
    assert kept == {each.search_id for each in answers if stocked.parts.query_log.keeps(each.search_id)}
    assert 30 < len(kept) < 90
    for answer in answers:
        if answer.search_id not in kept:
            assert "50.00% of the searches are kept" in refused(stocked, answer.search_id, ("p1", 1))[2]
            return


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written or trimmed but where the test says so."""
    monkeypatch.setattr(query_log, "WRITE_S", 3600.0)


@pytest.mark.parametrize("settings", [ON | {"query_log_rows": 5}], indirect=True)
@pytest.mark.usefixtures("by_hand")
def test_the_log_is_bounded_and_what_left_it_is_not_clicked_any_more(settings: Settings) -> None:
    with running(settings) as service:
        service.client.upsert_passages(passages())
        _log_is_bounded(service)


def _log_is_bounded(stocked: Service) -> None:
    client = stocked.client
    answers = [client.search(question(n), limit=2) for n in range(8)]
    for answer in answers:
        client.feedback(answer.search_id, [(shown(answer)[0], 1)])
    assert client.dataset("judgments").queries == 8
    evaluation = client.create_evaluation(["judgments:dev"])
    client.cancel_evaluation(evaluation.id)
    wait_until(lambda: not (stocked.settings.jobs_dir / evaluation.id).exists())
    stocked.parts.query_log.trim()
    assert [each.search_id for each in client.queries().searches] == [each.search_id for each in answers[:2:-1]]
    assert client.dataset("judgments").queries == 5
    wait_until(lambda: contents(stocked) == set())  # nothing that was written out tells what was asked
    status, slug, said = refused(stocked, answers[0].search_id, (shown(answers[0])[0], 1))
    assert (status, slug) == (404, "search-not-found")
    assert "ADIABAT_QUERY_LOG_ROWS" in said


@logging
def test_no_search_waits_for_the_log_and_what_waits_too_long_is_dropped_and_counted(
    stocked: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_log, "MAX_WAITING", 7)
    stocked.client.search("warm")
    stocked.client.queries()  # which writes down what waits
    writer = sqlite3.connect(stocked.settings.registry_path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # the registry takes no writes
    started = time.monotonic()
    # The thread may hold some of them already, and waits for the registry.
    for n in range(12 + query_log.AT_ONCE):
        assert stocked.client.search(f"pump {n}", limit=1).hits
    took_s = time.monotonic() - started
    writer.execute("ROLLBACK")
    writer.close()
    wait_until(lambda: sum(counted(stocked, "adiabat_logged_searches_total")) == 13 + query_log.AT_ONCE)
    stored, dropped = counted(stocked, "adiabat_logged_searches_total")
    assert dropped > 0
    assert stocked.client.queries().count == stored
    assert took_s < 20  # each alone would wait half a minute


@logging
def test_clicks_become_pairs_of_the_dataset_and_what_is_judged_counts_before_them(stocked: Service) -> None:
    client = stocked.client
    answers = [client.search(question(n), limit=5, lang="en") for n in range(10)]
    for answer in answers:
        client.feedback(answer.search_id, [(shown(answer)[2], 3)])
    client.judge(question(0), shown(answers[0])[2], 0)
    client.judge(question(1), "p59", 3)
    shown_now = client.dataset("judgments")
    assert (shown_now.queries, shown_now.languages) == (10, {"en": 9})
    pairs = {name: split.pairs for name, split in shown_now.splits.items()}
    assert pairs == {"dev": 1, "train": 10}
    client.delete_passages([shown(answers[5])[2]])
    unknown = client.dataset("judgments").unknown_passages
    assert unknown is not None
    assert unknown.ids == [shown(answers[5])[2]]
    client.delete_query(answers[9].search_id)
    assert client.dataset("judgments").queries == 9
    with pytest.raises(ApiError, match="holds no search"):
        client.delete_query(answers[9].search_id)


@pytest.mark.parametrize("settings", [ON | {"api_key": SERVICE_KEY, "clicks_per_key": 5}], indirect=True)
def test_a_flood_from_one_key_is_limited_and_counts_for_little(stocked: Service) -> None:
    keys = {
        name: stocked.client.create_key(name, burst=burst, rate_per_s=rate)
        for name, burst, rate in (("shop", None, None), ("slow", 3, 0.001))
    }
    with AdiabatClient(stocked.url, keys["shop"].key) as shop:
        for n in range(20):
            answer = shop.search(f"flood {n}", limit=3)
            shop.feedback(answer.search_id, [(shown(answer)[0], 1)])
        answer = shop.search("theirs", limit=3)
    assert stocked.client.dataset("judgments").queries == 5
    with AdiabatClient(stocked.url, keys["slow"].key, retries=0) as slow:
        for _ in range(3):
            with pytest.raises(ApiError, match="holds no search"):
                slow.feedback(f"{random.getrandbits(128):032x}", [("p1", 1)])
        with pytest.raises(ApiError) as caught:
            slow.feedback(answer.search_id, [(shown(answer)[0], 1)])
        assert (caught.value.status, caught.value.slug) == (429, "rate-limited")
    assert {each.key for each in stocked.client.queries().searches} == {"shop"}
    assert stocked.client.queries(key="slow").searches == []


@logging
def test_the_log_is_exported_and_forgotten_by_the_command(stocked: Service, tmp_path: Path) -> None:
    answers = [stocked.client.search(f"pump {n}", limit=2) for n in range(3)]
    stocked.client.feedback(answers[0].search_id, [(shown(answers[0])[1], 2)])
    file = tmp_path / "queries.jsonl"
    assert adiabat(stocked, "queries", "export", str(file)) == f"3 searches to {file}\n"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["query"] for line in lines] == ["pump 2", "pump 1", "pump 0"]
    assert lines[2]["clicks"][0]["position"] == 2
    since = str(lines[1]["at"])
    assert adiabat(stocked, "queries", "export", "-", "--since", since).count("\n") == 2
    assert adiabat(stocked, "queries", "delete", answers[0].search_id) == "1 forgotten\n"
    assert "[search-not-found]" in adiabat(stocked, "queries", "delete", answers[0].search_id, code=1)
    assert stocked.client.queries().count == 2


@pytest.mark.slow
def test_acknowledged_feedback_survives_a_killed_service(settings: Settings) -> None:
    with process(settings, "--no-trainer", variables={"ADIABAT_QUERY_LOG": "1"}) as (child, client):
        client.upsert_passages([{"id": "p1", "text": "the water pump"}])
        answer = client.search("pump")
        client.feedback(answer.search_id, [("p1", 1)])
        child.send_signal(signal.SIGKILL)
        child.wait()
    with process(settings, "--no-trainer") as (_, client):  # the log is off now, and what was kept is still there
        (kept,) = client.queries().searches
    assert kept.search_id == answer.search_id
    assert [click.passage_id for click in kept.clicks] == ["p1"]


@pytest.mark.slow
def test_feedback_to_another_replica_waits_until_the_search_is_written_down(settings: Settings, qdrant: str) -> None:
    shared = settings.model_copy(
        update=ON | {"qdrant_url": qdrant, "collection": f"adiabat_test_{random.getrandbits(48):x}"}
    )
    with running(shared) as one, running(shared) as other:
        one.client.upsert_passages(passages())
        for n in range(3):
            answer = one.client.search(f"pump {n}", limit=2)
            assert other.client.feedback(answer.search_id, [(shown(answer)[0], 1)]).stored == 1
        assert refused(other, f"{random.getrandbits(128):032x}", ("p1", 1))[:2] == (404, "search-not-found")
