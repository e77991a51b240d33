"""`/judgments`: what is taken and what is refused, the newest word, pages, and taking back."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.client import AdiabatClient
from app.settings import Settings
from tests.conftest import Service, process

SAID = {"query": "why does it leak", "passage_id": "p1", "relevance": 2}


@pytest.fixture
def stocked(service: Service) -> Service:
    service.client.upsert_passages({"id": f"p{n}", "text": f"the water pump {n}"} for n in range(40))
    return service


def post(service: Service, **fields: Any) -> httpx.Response:
    said = {name: value for name, value in (SAID | fields).items() if value is not ...}
    body, headers = json.dumps(said), {"Content-Type": "application/json"}  # httpx cannot write half a character
    return httpx.post(f"{service.url}/judgments", content=body, headers=headers, trust_env=False)


def get(service: Service, **parameters: Any) -> dict[str, Any]:
    answer = httpx.get(f"{service.url}/judgments", params=parameters, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_judgment_is_answered_as_it_is_kept(stocked: Service) -> None:
    answer = post(stocked, query="  why\tdoes it\n leak ", lang="en")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["first_judged_at"] == made["judged_at"]
    assert {name: made[name] for name in ("query", "passage_id", "relevance", "lang")} == SAID | {"lang": "en"}
    assert get(stocked) == {"judgments": [made], "count": 1, "languages": {"en": 1}}


def test_the_newest_word_on_the_same_question_and_passage_counts(stocked: Service) -> None:
    first = post(stocked, lang="en")
    again = post(stocked, query="why  does it leak ", relevance=0)
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json()["id"], again.json()["first_judged_at"]) == (first.json()["id"], first.json()["judged_at"])
    assert "lang" not in again.json()
    assert get(stocked)["judgments"] == [again.json()]
    same = post(stocked, relevance=0)
    assert (same.status_code, same.json()) == (200, again.json())


def test_two_clients_that_judge_the_same_pair_at_once_leave_one_judgment(stocked: Service) -> None:
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda n: post(stocked, relevance=n % 4), range(24)))
    assert sorted(answer.status_code for answer in answers) == [200] * 23 + [201]
    (kept,) = get(stocked)["judgments"]
    assert kept in [answer.json() for answer in answers]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"relevance": 4}, "must be an integer from 0 (not relevant) to 3 (answers it perfectly), not 4"),
        ({"relevance": -1}, "from 0"),
        ({"relevance": 1.5}, "from 0"),
        ({"relevance": True}, "from 0"),
        ({"relevance": "2"}, "from 0"),
        ({"relevance": ...}, "relevance: is missing"),
        ({"query": " \n "}, "query: is empty"),
        ({"query": "x" * 8_193}, "ADIABAT_MAX_QUERY_CHARS"),
        ({"query": "half \ud800"}, "query"),
        ({"passage_id": "p\t1"}, "without a tab"),
        ({"passage_id": ""}, "1 to 512"),
        ({"passage_id": "half \ud800"}, "passage_id"),
        ({"lang": "auf Deutsch"}, "must be the code of a language"),
        ({"lang": ""}, "must be the code of a language"),
        ({"grade": 1}, "grade: is not known here"),
    ],
)
def test_what_is_no_judgment_is_refused_by_its_field(stocked: Service, fields: dict[str, Any], word: str) -> None:
    answer = post(stocked, **fields)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:adiabat:problem:invalid-field")
    assert word in answer.json()["detail"]
    assert get(stocked)["count"] == 0


def test_only_what_is_stored_now_can_be_judged(stocked: Service) -> None:
    answer = post(stocked, passage_id="none")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:adiabat:problem:passage-not-found")
    assert answer.json()["detail"] == "No passage has the id 'none'; only what is stored can be judged."
    assert get(stocked)["count"] == 0


def test_judgments_are_counted_by_grade_and_refusals_are_not(stocked: Service) -> None:
    for relevance in (0, 3, 3, 9):
        post(stocked, relevance=relevance)
    counted = [line for line in stocked.client.metrics().splitlines() if line.startswith("adiabat_judgments_total")]
    assert [line.partition(" ")[2] for line in counted] == ["1.0", "0.0", "0.0", "2.0"]


def test_pages_are_newest_first_and_of_one_question_where_it_is_named(stocked: Service) -> None:
    for n in range(7):
        post(stocked, passage_id=f"p{n}", query="one" if n % 2 else "another  question")
    first = get(stocked, limit=3)
    post(stocked, passage_id="p39")  # what comes meanwhile shifts nothing
    second = get(stocked, limit=3, cursor=first["next_cursor"])
    third = get(stocked, limit=3, cursor=second["next_cursor"])
    ids = [each["passage_id"] for page in (first, second, third) for each in page["judgments"]]
    assert ids == [f"p{n}" for n in range(6, -1, -1)]
    assert (first["count"], second["count"], "next_cursor" in third) == (7, 8, False)
    of_one = get(stocked, query=" another question", limit=2)
    assert ([each["passage_id"] for each in of_one["judgments"]], of_one["count"]) == (["p6", "p4"], 4)
    assert get(stocked, query="another question", cursor=of_one["next_cursor"])["judgments"][0]["passage_id"] == "p2"
    assert get(stocked, query="nobody asked") == {"judgments": [], "count": 0, "languages": {}}


def test_judgments_are_listed_and_counted_by_language(stocked: Service) -> None:
    for n, lang in enumerate(["de", "en", ..., "de", "de", ...]):
        post(stocked, passage_id=f"p{n}", query=f"why {n % 2}", lang=lang)
    languages = {"de": 3, "": 2, "en": 1}
    for asked, ids in (
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"lang": "de"}, [4, 3, 0]),
        ({"lang": ""}, [5, 2]),
        ({"lang": "fr"}, []),
    ):
        found = get(stocked, **asked)
        assert [each["passage_id"] for each in found["judgments"]] == [f"p{n}" for n in ids]
        assert (found["count"], found["languages"]) == (len(ids), languages)
    first = get(stocked, lang="de", limit=2)
    assert get(stocked, lang="de", cursor=first["next_cursor"])["judgments"][0]["passage_id"] == "p0"
    assert get(stocked, lang="de", query="why 0")["languages"] == {"de": 2, "": 1}
    assert stocked.client.judgments(lang="en").count == 1


@pytest.mark.parametrize("parameters", [{"cursor": "x"}, {"cursor": "9" * 40}, {"limit": "0"}, {"passage": "p1"}])
def test_a_page_that_is_none_is_refused(stocked: Service, parameters: dict[str, str]) -> None:
    answer = httpx.get(f"{stocked.url}/judgments", params=parameters, trust_env=False)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:adiabat:problem:invalid-field")


def test_what_is_taken_back_is_gone(stocked: Service) -> None:
    kept, gone = post(stocked).json(), post(stocked, passage_id="p2").json()
    address = f"{stocked.url}/judgments/{gone['id']}"
    assert httpx.delete(address, trust_env=False).status_code == 204
    assert get(stocked)["judgments"] == [kept]
    again = httpx.delete(address, trust_env=False)
    assert (again.status_code, again.json()["type"]) == (404, "urn:adiabat:problem:judgment-not-found")
    assert post(stocked, passage_id="p2").status_code == 201


@pytest.mark.slow
def test_an_acknowledged_judgment_survives_a_killed_service(settings: Settings) -> None:
    def judged(client: AdiabatClient) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{client.url}/judgments", trust_env=False).json()
        return found

    with process(settings, "--no-trainer") as (child, client):
        client.upsert_passages([{"id": "p1", "text": "the water pump"}])
        made = httpx.post(f"{client.url}/judgments", json=SAID, trust_env=False).json()
        child.send_signal(signal.SIGKILL)
        child.wait()
    with process(settings, "--no-trainer") as (_, client):
        assert judged(client)["judgments"] == [made]
