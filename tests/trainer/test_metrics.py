import numpy as np
import pytest

from trainer import metrics
from trainer.metrics import drift, mrr, ranks_of_relevant, score


def rows(*each: list[int]) -> list[np.ndarray]:
    return [np.array(r, dtype=np.int64) for r in each]


def brute_force(queries: np.ndarray, vectors: np.ndarray, relevant: list[np.ndarray]) -> list[list[int]]:
    """The definition, one query at a time: sort by (score descending, row ascending) and look up."""
    found = []
    for query, wanted in zip(queries, relevant, strict=True):
        scores = [float(np.dot(query, vector)) for vector in vectors]
        order = sorted(range(len(vectors)), key=lambda row: (-scores[row], row))
        found.append([order.index(row) + 1 for row in wanted])
    return found


def test_hand_computed_case() -> None:
    """Twelve passages, ranked by row; the rows' weights fall, and every query is the same."""
    vectors = np.diag(np.arange(12.0, 0.0, -1.0)).astype(np.float32)
    queries = np.ones((4, 12), dtype=np.float32)
    result = score(queries, vectors, rows([0], [2, 1], [11], [0, 3, 10]))
    assert result.mrr.tolist() == [1.0, 0.5, 0.0, 1.0]
    assert result.recall_10 == pytest.approx([1.0, 1.0, 0.0, 2 / 3])
    assert result.recall_100.tolist() == [1.0, 1.0, 1.0, 1.0]
    second = (1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    fourth = (1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3) + 1 / np.log2(4))
    assert result.ndcg == pytest.approx([1.0, second, 0.0, fourth])
    # Of the other passages, ahead: none of 11; 1 of 10 twice; 11 of 11; 0, 2 and 8 of 9.
    assert result.triplets == pytest.approx([1.0, 0.9, 0.0, 1 - (0 + 2 + 8) / 27])


def test_what_lies_below_the_hundredth_place_is_not_recalled() -> None:
    vectors = np.diag(np.arange(120.0, 0.0, -1.0)).astype(np.float32)
    result = score(np.ones((1, 120), dtype=np.float32), vectors, rows([0, 99, 100, 119]))
    assert result.recall_100.tolist() == [0.5]
    assert result.recall_10.tolist() == [0.25]


def test_where_every_passage_is_relevant_there_is_no_triplet_to_lose() -> None:
    result = score(np.ones((1, 2), dtype=np.float32), np.eye(2, dtype=np.float32), rows([1, 0]))
    assert result.triplets.tolist() == [1.0]


def test_the_share_of_triplets_is_that_of_every_triplet_counted_one_by_one() -> None:
    rng = np.random.default_rng(3)
    vectors, queries = rng.normal(size=(40, 6)), rng.normal(size=(9, 6))
    relevant = [rng.choice(40, size=rng.integers(1, 5), replace=False) for _ in range(9)]
    found = score(queries.astype(np.float32), vectors.astype(np.float32), relevant).triplets
    for query, wanted, share in zip(queries, relevant, found, strict=True):
        near = vectors @ query
        others = np.setdiff1d(np.arange(40), wanted)
        assert share == pytest.approx(np.mean([near[positive] > near[others] for positive in wanted]))


def test_the_fast_mrr_is_the_librarys() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.integers(-2, 3, size=(61, 8)).astype(np.float32)  # many ties
    queries = rng.integers(-2, 3, size=(200, 8)).astype(np.float32)
    relevant = [rng.choice(61, size=rng.integers(1, 5), replace=False) for _ in range(200)]
    found = score(queries, vectors, relevant).mrr
    assert np.array_equal(mrr(queries, vectors, relevant), found)
    assert 0 < np.mean(found == 0) < 1  # some are below the tenth place


def test_drift_is_the_mean_of_one_minus_cosine_also_where_it_is_tiny() -> None:
    angles = np.array([0.0, 1e-3, 1.0])
    base = np.tile([1.0, 0.0], (3, 1)).astype(np.float32)
    turned = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert drift(base, turned) == pytest.approx(np.mean(1 - np.cos(angles)), abs=1e-7)
    assert drift(base, base) == 0.0


def test_equal_scores_are_ordered_by_row() -> None:
    vectors = np.ones((5, 2), dtype=np.float32)
    ranks = ranks_of_relevant(np.ones((1, 2), dtype=np.float32), vectors, rows([3, 0]))
    assert ranks[0].tolist() == [4, 1]


def test_ranks_agree_with_brute_force_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "QUERY_BLOCK", 7)
    monkeypatch.setattr(metrics, "PASSAGE_BLOCK", 16)
    rng = np.random.default_rng(0)
    # Small whole numbers: sums are exact in any order, and there are many ties.
    vectors = rng.integers(-2, 3, size=(61, 8)).astype(np.float32)
    queries = rng.integers(-2, 3, size=(30, 8)).astype(np.float32)
    relevant = [rng.choice(61, size=rng.integers(1, 5), replace=False) for _ in range(30)]
    got = [each.tolist() for each in ranks_of_relevant(queries, vectors, relevant)]
    assert got == brute_force(queries, vectors, relevant)


def test_a_mismatch_of_queries_and_judgments_is_refused() -> None:
    with pytest.raises(ValueError, match="2 queries but 1"):
        ranks_of_relevant(np.ones((2, 2), dtype=np.float32), np.ones((3, 2), dtype=np.float32), rows([0]))
