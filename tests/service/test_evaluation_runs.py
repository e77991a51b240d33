"""Evaluations at the trainer: the real worker in a thread of the test, or in its own process where it is killed."""

import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trainer.evaluation
from app.client import AdiabatClient
from app.settings import Settings
from app.wire.evaluations import Cell, EvaluationPublic, EvaluationResult
from tests.conftest import Service, process, trainer_of, wait_until
from tests.service import encoders
from tests.service.evaluations import passages, put, questions, stock, working
from trainer.evaluate import measure

pytestmark = pytest.mark.slow

TRAINER_STARTS_S = 240  # it imports torch at the lowest priority


@pytest.fixture
def stocked(service: Service, tiny: Path, sources: Path, tmp_path: Path) -> Service:
    return stock(service, tiny, sources, tmp_path)


def evaluated(client: AdiabatClient, datasets: list[str], named: list[str]) -> EvaluationResult:
    done = client.wait_for_evaluation(client.create_evaluation(datasets, named).id)
    assert done.status == "succeeded", done.reason
    assert done.result is not None
    return done.result


def ranks(client: AdiabatClient, encoder: str, question: dict[str, Any]) -> list[int]:
    """Where the service's own exact search finds the relevant passages; those that are not stored are not found."""
    found = [hit.id for hit in client.search(question["query"], encoder=encoder, exact=True, limit=100).hits]
    return sorted(found.index(each) + 1 for each in question["relevant"] if each in found)


def counted(client: AdiabatClient, encoder: str, asked: list[dict[str, Any]]) -> dict[str, float]:
    """The figures by their definitions, over the questions of which something is stored."""
    stored = client.count_passages()
    found = [each for question in asked if (each := ranks(client, encoder, question))]
    ideal = [sum(1 / math.log2(place + 1) for place in range(1, min(len(each), 10) + 1)) for each in found]
    gain = [sum(1 / math.log2(rank + 1) for rank in each if rank <= 10) for each in found]
    return {
        "queries": len(found),
        "mrr": sum(1 / each[0] for each in found if each[0] <= 10) / len(found),
        "ndcg": sum(one / best for one, best in zip(gain, ideal, strict=True)) / len(found),
        "recall_10": sum(sum(rank <= 10 for rank in each) / len(each) for each in found) / len(found),
        "recall_100": 1.0,
        "triplets": sum(sum(nearer(each, rank, stored) for rank in each) / len(each) for each in found) / len(found),
    }


def nearer(relevant: list[int], rank: int, stored: int) -> float:
    """The share of the other passages that come behind the relevant one at `rank`."""
    others = [place for place in range(1, stored + 1) if place not in relevant]
    return sum(place > rank for place in others) / len(others)


def told(cell: Any) -> dict[str, float]:
    return {name: getattr(cell, name) for name in ("queries", "mrr", "ndcg", "recall_10", "recall_100", "triplets")}


def by_language(language: str) -> list[dict[str, Any]]:
    return [each for each in questions() if each["lang"] == language]


def test_the_matrix_is_what_counting_by_hand_gives_and_compares_with_the_base_in_pairs(stocked: Service) -> None:
    with working(stocked.settings):
        result = evaluated(stocked.client, ["pumps", "own"], ["near"])
    assert_counted(stocked.client, result)
    assert_compared(result.matrix["base@1"], result.matrix["near@1"])


def assert_counted(client: AdiabatClient, result: EvaluationResult) -> None:
    assert list(result.matrix) == ["base@1", "near@1"]
    for key, row in result.matrix.items():
        assert list(row) == ["pumps:test", "own:test"]
        assert told(row["pumps:test"]) == pytest.approx(counted(client, key, questions()), abs=1e-9)
        assert list(row["pumps:test"].languages) == ["de", "en"]  # a third of the questions names none
        for language, figures in row["pumps:test"].languages.items():
            assert told(figures) == pytest.approx(counted(client, key, by_language(language)), abs=1e-9)
        # The same texts, embedded by the trainer and by the service: the two roads must agree.
        assert told(row["own:test"]) == pytest.approx(told(row["pumps:test"]), abs=1e-9)
    assert {name: (each.own_corpus, each.passages) for name, each in result.datasets.items()} == {
        "pumps:test": (False, 30),
        "own:test": (True, 30),
    }


def assert_compared(base: dict[str, Cell], near: dict[str, Cell]) -> None:
    assert [(cell.difference, cell.drift) for cell in base.values()] == [(None, None)] * 2
    for name, cell in near.items():
        found = difference(cell)
        assert found.change == pytest.approx(cell.mrr - base[name].mrr, abs=1e-12)
        assert found.low < found.change < found.high
        assert 1e-6 < (cell.drift or 0) < 1
        assert cell.languages["de"].difference is not None
        assert cell.languages["de"].difference.p_holm is None
    p, same = difference(near["pumps:test"]).p, difference(near["own:test"]).p
    assert p == same  # the same questions over the same passages, so Holm doubles both
    assert {difference(cell).p_holm for cell in near.values()} == {min(2 * p, 1.0)}


def difference(cell: Cell) -> Any:
    assert cell.difference is not None
    return cell.difference


def test_judgments_whose_passage_is_gone_are_listed_and_are_no_misses(stocked: Service) -> None:
    client = stocked.client
    client.delete_passages(["p0", "p1", "p2", "p5"])  # all that answers the questions 0, 1, 2, and 5; half of 4's
    with working(stocked.settings):
        result = evaluated(client, ["pumps", "pumps:gone", "own"], ["near"])
        alone = client.wait_for_evaluation(client.create_evaluation(["pumps:gone"]).id)
    missing = result.datasets["pumps:test"].missing
    assert (missing.judgments, missing.ids, missing.queries) == (6, ["p0", "p1", "p2", "p5"], 4)
    assert told(result.matrix["near@1"]["pumps:test"]) == pytest.approx(counted(client, "near", questions()), abs=1e-9)
    assert (result.datasets["pumps:gone"].queries, result.datasets["pumps:gone"].missing.ids) == (0, ["no-such"])
    assert all(list(row) == ["pumps:test", "own:test"] for row in result.matrix.values())
    assert result.datasets["own:test"].missing.judgments == 0
    assert result.matrix["base@1"]["own:test"].queries == 30
    assert (alone.status, alone.result) == ("failed", None)
    assert "No query of pumps:gone has a relevant passage that is there" in (alone.reason or "")


def test_no_more_than_a_hundred_missing_passages_are_named(stocked: Service, tmp_path: Path) -> None:
    lost = [{"query": f"why {n}", "split": "test", "relevant": [f"lost-{n}"]} for n in range(150)]
    put(stocked.client, tmp_path, "half", [*questions(), *lost])
    with working(stocked.settings):
        missing = evaluated(stocked.client, ["half"], ["base"]).datasets["half:test"].missing
    assert (missing.judgments, missing.queries, len(missing.ids), missing.ids[99]) == (150, 150, 100, "lost-99")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once the trainer measures; it goes on when it is asked to stop."""
    begun = threading.Event()

    def hold(*given: Any, should_stop: Callable[[], bool], **named: Any) -> Any:
        begun.set()
        wait_until(should_stop)
        return measure(*given, should_stop=should_stop, **named)

    monkeypatch.setattr(trainer.evaluation, "measure", hold)
    return begun


def test_a_cancelled_evaluation_ends_and_tells_nothing(stocked: Service, held: threading.Event) -> None:
    client = stocked.client
    with working(stocked.settings):
        evaluation = client.create_evaluation(["pumps"], ["near"])
        assert held.wait(60)
        wait_until(lambda: client.evaluation(evaluation.id).progress.get("steps") == 2)
        assert client.evaluation(evaluation.id).progress["phase"] == "base@1 on pumps:test"
        assert client.cancel_evaluation(evaluation.id).status == "cancelling"
        done = client.wait_for_evaluation(evaluation.id)
    assert (done.status, done.result) == ("cancelled", None)
    wait_until(lambda: not any(stocked.settings.jobs_dir.iterdir()))


def test_an_evaluation_whose_trainer_is_stopped_can_be_resumed(
    stocked: Service, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = stocked.client
    with working(stocked.settings) as worker:
        evaluation = client.create_evaluation(["pumps"], ["near"])
        assert held.wait(60)
        worker.stop()
        interrupted = client.wait_for_evaluation(evaluation.id)
    assert interrupted.status == "interrupted"
    monkeypatch.undo()
    with working(stocked.settings):
        client.resume_evaluation(evaluation.id)
        assert client.wait_for_evaluation(evaluation.id).status == "succeeded"


def test_an_evaluation_whose_trainer_is_killed_is_resumed_and_tells_what_an_unbroken_one_tells(
    settings: Settings, tiny: Path, sources: Path, tmp_path: Path
) -> None:
    encoders.near(tiny, sources / "near", scale=0.1)
    with process(settings) as (child, client):
        client.upsert_passages(passages())
        client.register_encoder("near", path="near", force=True)
        put(client, tmp_path, "pumps", questions())
        evaluation = client.create_evaluation(["pumps"], ["near"])
        # It is seen to run before the base is loaded: the kill comes in the midst of it.
        wait_until(lambda: client.evaluation(evaluation.id).status == "running", TRAINER_STARTS_S)
        os.kill(trainer_of(child.pid), signal.SIGKILL)
        assert ended(client, evaluation).status == "interrupted"
        client.resume_evaluation(evaluation.id)
        resumed = ended(client, evaluation)
        unbroken = ended(client, client.create_evaluation(["pumps"], ["near"]))
    assert (resumed.status, unbroken.status) == ("succeeded", "succeeded")
    assert resumed.result == unbroken.result


def ended(client: AdiabatClient, evaluation: EvaluationPublic) -> EvaluationPublic:
    return client.wait_for_evaluation(evaluation.id)


@pytest.mark.parametrize("settings", [{"query_log": 1.0}], indirect=True)
def test_logged_queries_are_asked_again_with_another_encoder_as_the_service_would_answer_them(stocked: Service) -> None:
    client = stocked.client
    filter = {"must": [{"has_id": [f"p{n}" for n in range(0, 30, 2)]}]}
    for n in range(12):
        client.search(questions()[n]["query"], lang="de" if n % 3 else "en", filter=filter if n % 2 else None)
    client.search(questions()[0]["query"], lang="en")  # once more: it counts twice
    client.search(questions()[20]["query"], offset=5)  # a second page is no search of its own
    client.search(questions()[21]["query"], mode="hybrid")
    client.search(questions()[22]["query"], mode="lexical")
    third = client.search(questions()[4]["query"], encoder="near", exact=True)
    client.delete_query(third.search_id)
    client.judge(questions()[4]["query"], third.hits[2].id, 3)
    client.judge(questions()[5]["query"], "p5", 0)
    with working(stocked.settings):
        evaluation = client.create_evaluation(encoders=["near"], replay={"limit": 100})
        done = client.wait_for_evaluation(evaluation.id)
    assert done.result is not None, done.reason
    found = done.result.replay
    assert found is not None
    assert (found.against, found.searches, found.queries, found.left_out) == ("base@1", 13, 12, 2)
    assert (done.result.matrix, list(found.encoders)) == ({"base@1": {}, "near@1": {}}, ["near@1"])

    expected = []
    for n in (*range(12), 0):
        base, near = (
            [
                hit.id
                for hit in client.search(
                    questions()[n]["query"], filter=filter if n % 2 else None, encoder=encoder, exact=True, limit=100
                ).hits
            ]
            for encoder in ("base", "near")
        )
        expected.append((len(set(base[:10]) & set(near[:10])) / 10, base[0] != near[0], base[:10], near[:10]))
    near = found.encoders["near@1"]
    assert near.overlap == pytest.approx(sum(each[0] for each in expected) / 13)
    assert near.first_changed == pytest.approx(sum(each[1] for each in expected) / 13)
    assert {lang: each.searches for lang, each in near.languages.items()} == {"de": 8, "en": 5}
    assert near.changes
    assert [each.rbo for each in near.changes] == sorted(each.rbo for each in near.changes)
    for change in near.changes:
        assert (change.before, change.after) in [(each[2], each[3]) for each in expected]
    assert near.judged is not None
    assert found.judged is not None
    assert (near.judged.queries, found.judged.queries) == (1, 1)
    assert near.judged.mrr == pytest.approx(1 / 3)
    assert near.judged.difference is not None
    assert near.judged.difference.change == pytest.approx(near.judged.mrr - found.judged.mrr)
