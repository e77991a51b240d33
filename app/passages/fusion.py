"""Rankings of the store's points, fused and cut into pages. Knows no Qdrant.

The fusion is made here and not by Qdrant, whose order of equal scores changes from call to call: half of what one side
alone found scores what some hit of the other side does, so pages would repeat hits and leave out others.
"""

from collections.abc import Hashable
from operator import itemgetter
from typing import TypeVar

DEPTH = 500  # how many of either side's best are ranked: always as many, so that every page is of one ranking
RRF_K = 10

Point = TypeVar("Point", bound=Hashable)
Ranking = list[tuple[Point, float]]  # best first, with scores


def fuse(near: Ranking[Point], words: Ranking[Point], k: int = RRF_K) -> Ranking[Point]:
    """By reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009): the sums of 1 / (k + rank), from 1.

    Of equal sums those of `near` come first.
    """
    sums: dict[Point, float] = {}
    for ranking in (near, words):
        for rank, (point, _) in enumerate(ranking, 1):
            sums[point] = sums.get(point, 0.0) + 1 / (k + rank)
    return sorted(sums.items(), key=itemgetter(1), reverse=True)


def cut(ranking: Ranking[Point], limit: int, offset: int, score_threshold: float | None) -> Ranking[Point]:
    """Of the first `DEPTH` those from `offset` on, without what scores under the threshold."""
    page = ranking[offset : min(offset + limit, DEPTH)]
    return page if score_threshold is None else [each for each in page if each[1] >= score_threshold]
