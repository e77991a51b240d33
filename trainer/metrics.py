"""Exact retrieval metrics: the rank of every relevant passage among all of them, counted, not approximated.

Ties: passages are ordered by score, best first, and equal scores by row, lowest first. The order is total, so
the same vectors always give the same figures. Relevance is binary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]

QUERY_BLOCK = 256
PASSAGE_BLOCK = 16_384
DEEPEST = 100
MEASURES = {"mrr": RR @ 10, "ndcg": nDCG @ 10, "recall_10": R @ 10, "recall_100": R @ DEEPEST}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One value per query, so that two encoders can be compared in pairs; each array is (queries,).

    MRR@10, nDCG@10, recall@10, recall@100; `triplets`: of all triplets (query, relevant passage, another passage of
    the corpus), the share whose relevant passage is the closer one. arXiv 2407.00923 measures that share over given
    triplets; over all of them it is what a uniformly drawn negative gives on the average, without the lot, and
    independent of any encoder's idea of what is hard (it is the area under the ROC curve; Hanley and McNeil 1982).
    """

    mrr: Doubles
    ndcg: Doubles
    recall_10: Doubles
    recall_100: Doubles
    triplets: Doubles


def score(queries: Floats, vectors: Floats, relevant: Sequence[Rows]) -> Scores:
    """All metrics of each query, by `ir_measures` from the exact ranks.

    queries: (q, dim); vectors: (n, dim), may be memory-mapped; relevant: q arrays of distinct rows, none
    empty. Scores are inner products, so both sides must be normalised for cosine.
    """
    ranks = ranks_of_relevant(queries, vectors, relevant)
    qrels = {str(i): {f"relevant {j}": 1 for j in range(len(each))} for i, each in enumerate(ranks)}
    values = {name: np.zeros(len(ranks)) for name in MEASURES}
    names = {measure: name for name, measure in MEASURES.items()}
    for found in ir_measures.iter_calc(MEASURES.values(), qrels, _runs(ranks, len(vectors))):
        values[names[found.measure]][int(found.query_id)] = found.value
    return Scores(**values, triplets=np.array([_triplets(each, len(vectors)) for each in ranks]))


def mrr(queries: Floats, vectors: Floats, relevant: Sequence[Rows]) -> Doubles:
    """MRR@10 of each query, (q,), the same as `score` gives and without the rest, for a search that asks often."""
    best = np.array([ranks.min() for ranks in ranks_of_relevant(queries, vectors, relevant)], dtype=np.float64)
    return np.where(best <= 10, 1.0 / best, 0.0)


def drift(base: Floats, tuned: Floats) -> float:
    """The mean of 1 - cos over the queries' vectors, (q, dim) each, normalised; in fp64, for it is often below 1e-4."""
    return float(np.mean(1.0 - np.einsum("qd,qd->q", base, tuned, dtype=np.float64)))


def _runs(ranks: Sequence[Rows], passages: int) -> dict[str, dict[str, int]]:
    """The first 100 of each ranking as scores, none equal: relevant passages at their ranks, others between them."""
    runs = {}
    for i, each in enumerate(ranks):
        places = {rank: f"other {rank}" for rank in range(1, min(passages, DEEPEST) + 1)}
        places |= {int(rank): f"relevant {j}" for j, rank in enumerate(each) if rank <= DEEPEST}
        runs[str(i)] = {passage: -rank for rank, passage in places.items()}
    return runs


def _triplets(ranks: Rows, passages: int) -> float:
    others = passages - len(ranks)
    if others == 0:
        return 1.0
    ahead = np.sort(ranks) - 1 - np.arange(len(ranks))  # passages that are not relevant, before each that is
    return float(1.0 - ahead.mean() / others)


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
    # a relevant passage would then be counted ahead of itself. A single block is computed once.
    only = list(_blocks(queries, vectors)) if len(vectors) <= PASSAGE_BLOCK else None
    for start, block in only or _blocks(queries, vectors):
        inside = (rows >= start) & (rows < start + block.shape[1])
        own[inside] = block[owner[inside], rows[inside] - start]
    ahead = np.zeros(len(rows), dtype=np.int64)
    for start, block in only or _blocks(queries, vectors):
        scores = block[owner]  # (pairs, block)
        ahead += np.count_nonzero(scores > own[:, None], axis=1)
        lower_row = np.arange(start, start + block.shape[1]) < rows[:, None]
        ahead += np.count_nonzero((scores == own[:, None]) & lower_row, axis=1)
    return np.split(ahead + 1, np.cumsum(counts)[:-1])


def _blocks(queries: Floats, vectors: Floats) -> Iterator[tuple[int, Floats]]:
    for start in range(0, len(vectors), PASSAGE_BLOCK):
        yield start, queries @ vectors[start : start + PASSAGE_BLOCK].T  # (q, block)
