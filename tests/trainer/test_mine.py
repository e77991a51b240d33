from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import unit, write_dataset, write_matrix
from trainer import mine as mine_module
from trainer.mine import draw, false_negative_ceilings, mine, top_rows
from trainer.training_set import TrainingSet, read_judged, read_matrix


def small(tmp_path: Path, vectors: np.ndarray, groups: list[int], positives: list[list[int]]) -> TrainingSet:
    matrix = read_matrix(write_matrix(tmp_path / "matrix", vectors, groups))
    queries = [(f"q{i}", f"text {i}") for i in range(len(positives))]
    qrels = [(f"q{i}", f"p{row}", 1) for i, rows in enumerate(positives) for row in rows]
    return TrainingSet(
        matrix=matrix, queries=read_judged(write_dataset(tmp_path / "set", queries, qrels), "train", matrix)
    )


def test_positives_and_their_identical_texts_are_never_negatives(tmp_path: Path) -> None:
    vectors = np.diag([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    training = small(tmp_path, vectors, groups=[0, 1, 0, 3, 4, 4], positives=[[0], [1, 4]])
    found = mine(np.ones((2, 6), dtype=np.float32), training, depth=3)
    assert found.tolist() == [[1, 3, 4], [0, 2, 3]]


def test_where_negatives_run_out_the_rest_is_minus_one(tmp_path: Path) -> None:
    training = small(tmp_path, np.diag([3.0, 2.0, 1.0]), groups=[0, 1, 2], positives=[[0, 2]])
    assert mine(np.ones((1, 3), dtype=np.float32), training, depth=4).tolist() == [[1, -1, -1, -1]]


def test_mining_agrees_with_sorting_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mine_module, "PASSAGE_BLOCK", 16)
    monkeypatch.setattr(mine_module, "QUERY_BLOCK", 4)
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng.normal(size=(90, 8))), unit(rng.normal(size=(10, 8)))
    groups = rng.integers(0, 60, size=90)
    positives = [rng.choice(90, size=3, replace=False).tolist() for _ in range(10)]
    found = mine(queries, small(tmp_path, vectors, groups.tolist(), positives), depth=12)
    for i, wanted in enumerate(positives):
        order = np.argsort(-(vectors @ queries[i]))
        allowed = [row for row in order if groups[row] not in groups[wanted]]
        assert found[i].tolist() == allowed[:12]


def test_the_best_rows_come_first_and_equal_scores_by_row() -> None:
    vectors = np.array([[1, 0], [2, 0], [2, 0], [0, 1]], dtype=np.float32)
    assert top_rows(np.array([[1, 0]], dtype=np.float32), vectors, 9).tolist() == [[1, 2, 0, 3]]


def test_drawing_is_by_lot_without_repetition_and_never_takes_what_is_not_there() -> None:
    negatives = np.array([[10, 11, 12, 13, 14, 15, 16, 17], [20, 21, -1, -1, -1, -1, -1, -1]])
    seen = set()
    for step in range(50):
        drawn = draw(negatives, 3, seed=(0, step))
        assert len(set(drawn[0].tolist())) == 3
        assert sorted(drawn[1].tolist()) == [-1, 20, 21]
        seen |= set(drawn[0].tolist())
    assert seen == set(range(10, 18))


def test_drawing_depends_on_the_seed_alone() -> None:
    negatives = np.arange(400).reshape(20, 20)
    assert np.array_equal(draw(negatives, 4, seed=(1, 2)), draw(negatives, 4, seed=(1, 2)))
    assert not np.array_equal(draw(negatives, 4, seed=(1, 2)), draw(negatives, 4, seed=(1, 3)))


def test_more_are_asked_for_than_were_mined() -> None:
    assert draw(np.array([[5, 6]]), 4, seed=(0, 0)).tolist()[0][2:] == [-1, -1]
    assert draw(np.empty((2, 0), dtype=np.int64), 0, seed=(0, 0)).shape == (2, 0)


def test_what_scores_nearly_as_a_positive_is_no_negative_and_deeper_ones_take_its_place(tmp_path: Path) -> None:
    # Scores of the query: 0.95, 0.9 (its best positive), 0.86, 0.8, 0.2 (its other positive), 0.1.
    vectors = np.array([0.95, 0.9, 0.86, 0.8, 0.2, 0.1])[:, None]
    training = small(tmp_path, vectors, groups=[0, 1, 2, 3, 4, 5], positives=[[4, 1]])
    query = np.ones((1, 1), dtype=np.float32)
    ceilings = false_negative_ceilings(query, training, 0.05)
    assert ceilings == pytest.approx([0.85])
    assert mine(query, training, depth=3, ceilings=ceilings).tolist() == [[3, 5, -1]]
    assert mine(query, training, depth=3).tolist() == [[0, 2, 3]]
    lenient = false_negative_ceilings(query, training, -0.02)  # only what is clearly above the positive
    assert mine(query, training, depth=3, ceilings=lenient).tolist() == [[2, 3, 5]]


def test_mining_below_ceilings_agrees_with_sorting_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mine_module, "PASSAGE_BLOCK", 16)
    monkeypatch.setattr(mine_module, "QUERY_BLOCK", 4)
    rng = np.random.default_rng(1)
    vectors, queries = unit(rng.normal(size=(90, 8))), unit(rng.normal(size=(10, 8)))
    positives = [rng.choice(90, size=3, replace=False).tolist() for _ in range(10)]
    training = small(tmp_path, vectors, list(range(90)), positives)
    ceilings = false_negative_ceilings(queries, training, 0.1)
    found = mine(queries, training, depth=12, ceilings=ceilings)
    taken_out = 0
    for i, wanted in enumerate(positives):
        scores = vectors @ queries[i]
        ceiling = scores[wanted].max() - 0.1
        taken_out += int((scores > ceiling).sum())
        allowed = [row for row in np.argsort(-scores) if scores[row] <= ceiling and row not in wanted]
        assert [row for row in found[i].tolist() if row >= 0] == allowed[:12]
    assert taken_out > 30
