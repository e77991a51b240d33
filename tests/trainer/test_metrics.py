import numpy as np
import pytest

from trainer import metrics
from trainer.metrics import ranks_of_relevant, score


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
    vectors = np.diag([4.0, 3.0, 2.0, 1.0]).astype(np.float32)
    queries = np.ones((3, 4), dtype=np.float32)  # ranks the rows 0, 1, 2, 3
    result = score(queries, vectors, rows([0], [2, 1], [3]), k=3)
    assert result.mrr.tolist() == [1.0, 0.5, 0.0]
    assert result.recall.tolist() == [1.0, 1.0, 0.0]
    ndcg = (1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert result.ndcg == pytest.approx([1.0, ndcg, 0.0])


def test_recall_counts_the_share_of_relevant_passages_found() -> None:
    vectors = np.diag([4.0, 3.0, 2.0, 1.0]).astype(np.float32)
    result = score(np.ones((1, 4), dtype=np.float32), vectors, rows([0, 3]), k=2)
    assert result.recall.tolist() == [0.5]


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
