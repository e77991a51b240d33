"""Rankings compared: against counting by hand, and the exact search behind them against sorting everything."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from trainer import replay
from trainer.replay import Replay, churn, compare_answers, overlap, rank_biased_overlap, read_replay
from trainer.stopping import never
from trainer.training_set import Matrix

P = replay.PERSISTENCE


def rows(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def matrix(vectors: NDArray[np.float32]) -> Matrix:
    ids = tuple(f"p{n}" for n in range(len(vectors)))
    return Matrix(ids=ids, vectors=vectors, groups=np.arange(len(vectors), dtype=np.int32), meta={})


def by_hand(before: list[int], after: list[int]) -> float:
    """The formula, term by term."""
    depth = len(before)
    common = [len(set(before[:d]) & set(after[:d])) for d in range(1, depth + 1)]
    total = sum(x / d * P**d for d, x in enumerate(common, 1))
    return common[-1] / depth * P**depth + (1 - P) / P * total


@pytest.mark.parametrize(
    ("before", "after"),
    [([1, 2, 3], [1, 2, 3]), ([1, 2, 3], [3, 2, 1]), ([1, 2, 3], [4, 5, 6]), ([1, 2, 3, 4], [5, 1, 6, 3]), ([1], [1])],
)
def test_rank_biased_overlap_is_what_the_formula_says(before: list[int], after: list[int]) -> None:
    assert rank_biased_overlap(rows(*before), rows(*after)) == pytest.approx(by_hand(before, after), abs=1e-12)


def test_rank_biased_overlap_is_one_for_the_same_nothing_for_strangers_and_weighs_the_head() -> None:
    whole = np.arange(100)
    assert rank_biased_overlap(whole, whole) == pytest.approx(1)
    assert rank_biased_overlap(whole, whole + 100) == 0
    assert rank_biased_overlap(rows(), rows()) == 1
    head, tail = whole.copy(), whole.copy()
    head[[0, 1]], tail[[98, 99]] = head[[1, 0]], tail[[99, 98]]
    assert rank_biased_overlap(whole, head) < rank_biased_overlap(whole, tail) < 1


def test_overlap_and_churn_look_at_the_first_ten() -> None:
    before, after = np.arange(100), np.r_[np.arange(5), np.arange(10, 100), np.arange(200, 205)]
    assert overlap(before, after) == 0.5
    assert churn(before, after) == sum(100 - place for place in range(5, 10)) / 10
    assert churn(rows(1, 2, 3), rows(2, 1, 3)) == pytest.approx(2 / 3)
    assert (overlap(rows(), rows()), churn(rows(), rows())) == (1, 0)
    assert overlap(rows(1, 2), rows(2, 9)) == 0.5


def test_the_best_are_those_that_sorting_everything_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PASSAGE_BLOCK", 37)
    monkeypatch.setattr(replay, "QUERY_BLOCK", 4)
    rng = np.random.default_rng(5)
    vectors = rng.integers(-2, 3, (400, 4)).astype(np.float32)  # many equal scores, all exact
    queries = rng.integers(-2, 3, (9, 4)).astype(np.float32)
    for allowed in (np.arange(400), np.arange(0, 400, 3), rows(7), rows()):
        found = replay._best(queries, vectors, allowed, never)
        for query, best in zip(queries, found, strict=True):
            order = sorted(allowed.tolist(), key=lambda row: (-float(vectors[row] @ query), row))
            assert best.tolist() == order[: replay.DEPTH]


def test_searches_count_as_often_as_they_were_asked_and_by_language() -> None:
    asked = Replay(
        matrix=matrix(np.eye(4, dtype=np.float32)),
        texts=("a", "b", "c"),
        langs=("de", "en", ""),
        times=np.array([3.0, 1.0, 4.0]),
        filters=(None, None, None),
        allowed=(),
        relevant=((), (), ()),
        searches=8,
        left_out=0,
    )
    before, after = [rows(0, 1), rows(0, 1), rows(2, 3)], [rows(1, 0), rows(2, 3), rows(2, 3)]
    told = compare_answers(asked, before, after, sample=5)
    assert (told["searches"], told["overlap"], told["first_changed"]) == (8, 7 / 8, 4 / 8)
    assert {lang: (each["searches"], each["overlap"]) for lang, each in told["languages"].items()} == {
        "de": (3, 1.0),
        "en": (1, 0.0),
    }
    assert [(each["query"], each["times"], each["before"], each["after"]) for each in told["changes"]] == [
        ("b", 1, ["p0", "p1"], ["p2", "p3"]),
        ("a", 3, ["p0", "p1"], ["p1", "p0"]),
    ]
    assert compare_answers(asked, before, after, sample=1)["changes"] == told["changes"][:1]


def test_what_was_written_down_is_read_without_what_is_not_stored_any_more(tmp_path: Path) -> None:
    file = tmp_path / "replay.json"
    queries = [
        {"query": "a", "lang": "de", "filter": 0, "times": 2, "relevant": ["p3", "gone"]},
        {"query": "a", "lang": "de", "filter": None, "times": 1, "relevant": ["p3", "gone"]},
        {"query": "b", "lang": "", "filter": None, "times": 1, "relevant": ["gone"]},
    ]
    file.write_bytes(
        orjson.dumps({"searches": 4, "left_out": 1, "queries": queries, "filters": [["p2", "gone", "p0"]]})
    )
    found = read_replay(file, matrix(np.eye(4, dtype=np.float32)))
    assert [each.tolist() for each in found.allowed] == [[0, 2]]
    judged = found.judged()
    assert (judged.texts, judged.langs, [each.tolist() for each in judged.relevant]) == (("a",), ("de",), [[3]])
