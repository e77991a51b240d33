"""Exact retrieval metrics: the rank of every relevant passage among all of them, counted, not approximated.

Ties: passages are ordered by score, best first, and equal scores by row, lowest first. The order is total, so
the same vectors always give the same figures. Relevance is binary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]

QUERY_BLOCK = 256
PASSAGE_BLOCK = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One value per query, so that two encoders can be compared in pairs; each array is (queries,)."""

    mrr: Doubles
    ndcg: Doubles
    recall: Doubles


def score(queries: Floats, vectors: Floats, relevant: Sequence[Rows], *, k: int = 10) -> Scores:
    """MRR@k, nDCG@k and recall@k of each query.

    queries: (q, dim); vectors: (n, dim), may be memory-mapped; relevant: q arrays of distinct rows, none
    empty. Scores are inner products, so both sides must be normalised for cosine.
    """
    ranks = ranks_of_relevant(queries, vectors, relevant)
    return Scores(
        mrr=np.array([_reciprocal(r, k) for r in ranks]),
        ndcg=np.array([_ndcg(r, k) for r in ranks]),
        recall=np.array([np.mean(r <= k) for r in ranks]),
    )


def ranks_of_relevant(queries: Floats, vectors: Floats, relevant: Sequence[Rows]) -> list[Rows]:
    """The ranks, from 1, of each query's relevant rows, in the order given."""
    if len(queries) != len(relevant):
        raise ValueError(f"{len(queries)} queries but {len(relevant)} lists of relevant rows")
    ranks: list[Rows] = []
    for start in range(0, len(queries), QUERY_BLOCK):
        stop = start + QUERY_BLOCK
        ranks += _ranks(queries[start:stop], vectors, relevant[start:stop])
    return ranks


def _ranks(queries: Floats, vectors: Floats, relevant: Sequence[Rows]) -> list[Rows]:
    counts = [len(rows) for rows in relevant]
    owner = np.repeat(np.arange(len(relevant)), counts)  # (pairs,)
    rows = np.concatenate([np.asarray(r, dtype=np.int64) for r in relevant])  # (pairs,)
    own = np.empty(len(rows), dtype=np.float32)
    # Two passes over the same blocks: a product computed in another shape may differ in its last bit, and
    # a relevant passage would then be counted ahead of itself.
    for start, block in _blocks(queries, vectors):
        inside = (rows >= start) & (rows < start + block.shape[1])
        own[inside] = block[owner[inside], rows[inside] - start]
    ahead = np.zeros(len(rows), dtype=np.int64)
    for start, block in _blocks(queries, vectors):
        scores = block[owner]  # (pairs, block)
        ahead += np.count_nonzero(scores > own[:, None], axis=1)
        lower_row = np.arange(start, start + block.shape[1]) < rows[:, None]
        ahead += np.count_nonzero((scores == own[:, None]) & lower_row, axis=1)
    return np.split(ahead + 1, np.cumsum(counts)[:-1])


def _blocks(queries: Floats, vectors: Floats) -> Iterator[tuple[int, Floats]]:
    for start in range(0, len(vectors), PASSAGE_BLOCK):
        yield start, queries @ vectors[start : start + PASSAGE_BLOCK].T  # (q, block)


def _reciprocal(ranks: Rows, k: int) -> float:
    best = int(ranks.min())
    return 1.0 / best if best <= k else 0.0


def _ndcg(ranks: Rows, k: int) -> float:
    gain = float(np.sum(1.0 / np.log2(ranks[ranks <= k] + 1.0)))
    ideal = float(np.sum(1.0 / np.log2(np.arange(1, min(len(ranks), k) + 1) + 1.0)))
    return gain / ideal
