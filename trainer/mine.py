"""Hard negatives: what the parent encoder ranks high for a query and nobody called relevant."""

import numpy as np
from numpy.typing import NDArray

from trainer.stopping import ShouldStop, check, never
from trainer.training_set import TrainingSet

QUERY_BLOCK = 256
PASSAGE_BLOCK = 16_384


def mine(
    queries: NDArray[np.float32],
    training: TrainingSet,
    *,
    depth: int,
    ceilings: NDArray[np.float32] | None = None,
    should_stop: ShouldStop = never,
) -> NDArray[np.int64]:
    """Up to `depth` negatives per query, hardest first: (q, depth) rows, -1 where there are no more.

    queries: (q, dim), embedded by the parent. A row is never a negative of a query if it is one of its
    positives, has the text of one, or scores above the query's ceiling, (q,), where there are any. Exact, and the
    same input gives the same rows.
    """
    groups = training.matrix.groups
    spare = _largest_positive_count(training)
    out = np.full((len(queries), depth), -1, dtype=np.int64)
    for start in range(0, len(queries), QUERY_BLOCK):
        check(should_stop)
        stop = start + QUERY_BLOCK
        highest = None if ceilings is None else ceilings[start:stop]
        top = top_rows(queries[start:stop], training.matrix.vectors, depth + spare, highest)
        for i, ranked in enumerate(top, start=start):
            positive = groups[training.queries.relevant[i]]
            # Where a ceiling leaves no more rows, `ranked` ends in -1, and so may what is kept.
            kept = ranked[~np.isin(groups[ranked], positive)][:depth]
            out[i, : len(kept)] = kept
    return out


def false_negative_ceilings(queries: NDArray[np.float32], training: TrainingSet, margin: float) -> NDArray[np.float32]:
    """The score above which a passage is no negative of a query: its best positive's less `margin`, (queries,).

    queries: (q, dim), embedded by the parent. TopK-MarginPos of NV-Retriever (Moreira et al. 2024,
    arXiv 2407.15831); with several positives the best one speaks, so that one the parent misses takes out nothing.
    """
    vectors = training.matrix.vectors
    best = [(vectors[rows] @ query).max() for query, rows in zip(queries, training.queries.relevant, strict=True)]
    return np.array(best, dtype=np.float32) - np.float32(margin)


def top_rows(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    ceilings: NDArray[np.float32] | None = None,
) -> NDArray[np.int64]:
    """The k best rows of each query by inner product, best first, equal scores by row: (q, min(k, n)).

    Rows that score above the query's ceiling, (q,), are left out; -1 stands where there are no more.
    """
    scores = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, len(vectors), PASSAGE_BLOCK):
        block = queries @ vectors[start : start + PASSAGE_BLOCK].T  # (q, block)
        if ceilings is not None:
            block[block > ceilings[:, None]] = -np.inf
        here = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores = np.concatenate([scores, block], axis=1)
        rows = np.concatenate([rows, here], axis=1)
        if scores.shape[1] > k:
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    rows[np.isneginf(scores)] = -1
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
