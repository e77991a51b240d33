"""`adiabat judge` against a real service."""

import json
from pathlib import Path

import pytest

from tests.conftest import Service
from tests.service.test_cli import adiabat


@pytest.fixture
def stocked(service: Service) -> Service:
    service.client.upsert_passages({"id": f"p{n}", "text": f"the water pump {n}"} for n in range(3))
    return service


def test_what_is_judged_is_listed_and_taken_back(stocked: Service) -> None:
    said = adiabat(stocked, "judge", "wo  leckt sie", "p1", "3", "--lang", "de")
    (made,) = stocked.client.judgments().judgments
    assert said == f"{made.id}  3  p1  wo leckt sie (de)\n"
    assert json.loads(adiabat(stocked, "judge", "why", "p0", "0", "--json"))["relevance"] == 0
    listed = adiabat(stocked, "judge", "--list", "--limit", "1").splitlines()
    assert listed[0].endswith("  0  p0  why")
    cursor = listed[1].removeprefix("2 judgments; the next page: --cursor ")
    assert adiabat(stocked, "judge", "--list", "--cursor", cursor) == f"{said}2 judgments\n"
    of_one = json.loads(adiabat(stocked, "judge", "--list", "wo leckt sie", "--json"))
    assert ([each["id"] for each in of_one["judgments"]], of_one["count"]) == ([made.id], 1)
    assert adiabat(stocked, "judge", "--delete", made.id) == "1 taken back\n"
    assert "[judgment-not-found]" in adiabat(stocked, "judge", "--delete", made.id, code=1)
    assert "[passage-not-found]" in adiabat(stocked, "judge", "why", "p9", "1", code=1)


def test_judgments_are_listed_by_language(stocked: Service) -> None:
    for n, lang in enumerate(("de", "en")):
        stocked.client.judge("why", f"p{n}", 1, lang=lang)
    said = adiabat(stocked, "judge", "--list", "--lang", "de").splitlines()
    assert said[0].endswith("1  p0  why (de)")
    assert said[1] == "1 judgments"


def test_a_file_is_judged_line_by_line_and_bad_lines_are_told_and_stop_nothing(
    stocked: Service, tmp_path: Path
) -> None:
    file = tmp_path / "judged.jsonl"
    good = [{"query": "why", "passage_id": "p0", "relevance": 1, "lang": "en"}, {"query": "how", "passage_id": "p1"}]
    file.write_text(f"{json.dumps(good[0])}\n\n{json.dumps(good[1] | {'relevance': 0})}\n")
    assert adiabat(stocked, "judge", "--file", str(file)) == "2 judged\n"
    assert json.loads(adiabat(stocked, "judge", "--file", str(file), "--json")) == {"judged": 2, "refused": 0}
    bad = ["{oops", json.dumps(good[0] | {"relevance": 9}), json.dumps(good[0] | {"passage_id": "p9"})]
    file.write_text("\n".join([*bad, json.dumps(good[0] | {"query": "when"})]))
    said = adiabat(stocked, "judge", "--file", str(file), code=1)
    for expected in (
        "judged.jsonl line 1: ",
        "line 2: relevance: must be an integer from 0",
        "line 3: No passage has the id 'p9'; only what is stored can be judged. [passage-not-found]",
        "3 of 4 lines were refused; the others are kept.",
    ):
        assert expected in said
    assert {each.query for each in stocked.client.judgments().judgments} == {"why", "how", "when"}


def test_what_is_not_asked_well_judges_nothing(stocked: Service, tmp_path: Path) -> None:
    for arguments in ((), ("why",), ("why", "p1", "1", "--list"), ("--list", "--delete", "x")):
        assert "one of them" in adiabat(stocked, "judge", *arguments, code=1)
    assert "RELEVANCE is missing" in adiabat(stocked, "judge", "why", "p1", code=1)
    assert "no such file" in adiabat(stocked, "judge", "--file", str(tmp_path / "none"), code=1)
    assert "must be an integer from 0" in adiabat(stocked, "judge", "why", "p1", "4", code=1)
    assert stocked.client.judgments().count == 0
