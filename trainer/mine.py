"""Hard negatives: what the parent encoder ranks high for a query and nobody called relevant."""

import numpy as np
from numpy.typing import NDArray

from trainer.stopping import ShouldStop, check, never
from trainer.training_set import TrainingSet

QUERY_BLOCK = 256
PASSAGE_BLOCK = 16_384


def mine(
    queries: NDArray[np.float32], training: TrainingSet, *, depth: int, should_stop: ShouldStop = never
) -> NDArray[np.int64]:
    """Up to `depth` negatives per query, hardest first: (q, depth) rows, -1 where there are no more.

    queries: (q, dim), embedded by the parent. A row is never a negative of a query if it is one of its
    positives or has the text of one. Exact, and the same input gives the same rows.
    """
    groups = training.matrix.groups
    spare = _largest_positive_count(training)
    out = np.full((len(queries), depth), -1, dtype=np.int64)
    for start in range(0, len(queries), QUERY_BLOCK):
        check(should_stop)
        top = top_rows(queries[start : start + QUERY_BLOCK], training.matrix.vectors, depth + spare)
        for i, ranked in enumerate(top, start=start):
            positive = groups[training.queries.relevant[i]]
            kept = ranked[~np.isin(groups[ranked], positive)][:depth]
            out[i, : len(kept)] = kept
    return out


def top_rows(queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k best rows of each query by inner product, best first, equal scores by row: (q, min(k, n))."""
    scores = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, len(vectors), PASSAGE_BLOCK):
        block = queries @ vectors[start : start + PASSAGE_BLOCK].T  # (q, block)
        here = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores = np.concatenate([scores, block], axis=1)
        rows = np.concatenate([rows, here], axis=1)
        if scores.shape[1] > k:
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(rows, order, 1)


def draw(negatives: NDArray[np.int64], count: int, *, seed: tuple[int, int]) -> NDArray[np.int64]:
    """`count` of each row's negatives without repetition, by lot: (queries, count), -1 for none."""
    lots = np.random.default_rng(seed).random(negatives.shape)
    lots[negatives < 0] = 2.0  # after every real one
    out = np.full((len(negatives), count), -1, dtype=np.int64)
    drawn = np.take_along_axis(negatives, np.argsort(lots, axis=1)[:, :count], axis=1)
    out[:, : drawn.shape[1]] = drawn
    return out


def _largest_positive_count(training: TrainingSet) -> int:
    """How many rows the exclusion can take from one query's ranking at most."""
    size = np.bincount(training.matrix.groups, minlength=1)
    groups = training.matrix.groups
    return max(int(size[np.unique(groups[rows])].sum()) for rows in training.queries.relevant)
