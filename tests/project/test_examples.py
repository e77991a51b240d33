"""The examples run, end to end, as their READMEs say; the tour is executed cell by cell."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from app.settings import Settings
from tests.conftest import free_port, process

EXAMPLES = Path(__file__).parents[2] / "examples"
STORIES = ("medical_faq", "support_desk", "code_search")
TOUR_S = 180  # a cell; alone all of them together take some thirty


def lines(story: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / story / name).read_text().splitlines()]


def library() -> Any:
    spec = importlib.util.spec_from_file_location("library", EXAMPLES / "code_search" / "library.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def passage_ids(story: str) -> list[str]:
    if story != "code_search":
        return [passage["id"] for passage in lines(story, "passages.jsonl")]
    return re.findall(r"^(?:def|class) (\w+)", (EXAMPLES / story / "library.py").read_text(), re.MULTILINE)


def run(story: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(EXAMPLES / story / "run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("story", STORIES)
def test_each_story_has_enough_to_learn_from_and_judges_only_what_is_there(story: str) -> None:
    ids, questions = passage_ids(story), lines(story, "questions.jsonl")
    assert 60 <= len(ids) == len(set(ids)) <= 120
    assert len({question["query"] for question in questions}) == len(questions)
    assert {passage for question in questions for passage in question["relevant"]} == set(ids)
    assert {"train", "dev", "test"} < {question["split"] for question in questions}
    counted = [sum(question["split"] == split for question in questions) for split in ("train", "dev", "test")]
    assert min(counted) >= 40, counted


def test_of_the_library_no_function_is_asked_for_in_two_splits() -> None:
    asked: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set(), "names": set()}
    for question in lines("code_search", "questions.jsonl"):
        asked[question["split"]] |= set(question["relevant"])
    assert not asked["train"] & (asked["dev"] | asked["test"])
    assert not asked["dev"] & asked["test"]


def test_the_library_does_what_its_questions_say() -> None:
    made = library()
    assert [str(made.easter(year)) for year in (1954, 2000, 2024, 2038)] == [
        "1954-04-18",
        "2000-04-23",
        "2024-03-31",
        "2038-04-25",
    ]
    assert (made.roman(2024), made.levenshtein("kitten", "sitting"), made.luhn("4539 1488 0343 6467")) == (
        "MMXXIV",
        3,
        True,
    )
    assert (made.parse_duration("1h30m"), made.digits(10, 2), made.primes_below(20)[-1]) == (5400, [1, 0, 1, 0], 19)
    assert made.merge_intervals([(7, 8), (1, 3), (2, 5)]) == [[1, 5], [7, 8]]
    assert made.topological({"a": ["b"], "b": ["c"]}) == ["c", "b", "a"]
    assert made.haversine_km(52.52, 13.405, 48.857, 2.352) == pytest.approx(877, abs=2)
    assert list(made.windowed("abcd", 3)) == [("a", "b", "c"), ("b", "c", "d")]


@pytest.mark.parametrize("story", STORIES)
def test_where_no_service_answers_a_story_says_so_in_one_sentence(story: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = run(story, "--url", url)
    assert ended.returncode == 1
    assert (ended.stderr.count("\n"), ended.stderr.startswith(f"{url} does not answer")) == (1, True)
    assert "'adiabat serve'" in ended.stderr


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[str]:
    """A service with the default encoder and nothing in it, with its trainer."""
    base = Settings(data_dir=tmp_path / "data")
    with process(base) as (_, client):
        yield client.url


@pytest.mark.nightly
@pytest.mark.parametrize("story", STORIES)
def test_a_story_is_told_to_its_end(story: str, alone: str) -> None:
    ended = run(story, "--url", alone)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout
    assert f"{len(passage_ids(story))} embedded" in said
    assert "dev MRR@10 changed by" in said
    assert ("The gate said no, so nothing was switched" in said) != ("answers again, as generation 3" in said)


def test_the_tour_is_kept_without_outputs() -> None:
    for cell in nbformat.read(EXAMPLES / "tour.ipynb", as_version=4).cells:
        assert not cell.get("outputs"), f"{cell.id}: clear it; what it shows is for whoever runs it"
        assert cell.get("execution_count") is None


@pytest.mark.nightly
def test_the_tour_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    tour = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(tour, timeout=TOUR_S, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.id: cell.outputs for cell in tour.cells if cell.cell_type == "code"}
    printed = {
        cell: "".join(each.text for each in shown if each.get("name") == "stdout") for cell, shown in outputs.items()
    }
    assert "120 passages embedded" in printed["ingest"]
    assert "by base@1, generation 1" in printed["search"]
    assert printed["register"].split() == ["tour@1", "probed", "ready"]
    (table,) = (each["data"]["text/markdown"] for each in outputs["languages"])
    assert re.findall(r"^\| (\w\w) \|", table, re.MULTILINE) == ["en", "de", "es", "fr", "vi"]
    assert any("image/png" in each.get("data", {}) for each in outputs["picture"])
    assert re.findall(r"generation (\d) answered [1-9]", printed["switch"]) == ["1", "2", "3"]
    assert "0 failed" in printed["switch"]
    assert [line.split()[1] for line in printed["history"].splitlines()] == ["base@1", "tour@1", "base@1"]
