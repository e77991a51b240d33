"""Logged queries asked again with other encoders, exactly, over the stored vectors: what would change for whom.

Nothing of it says which answer is better; only judgments do, where there are some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from trainer.embed import embed
from trainer.metrics import PASSAGE_BLOCK, QUERY_BLOCK
from trainer.stopping import ShouldStop, check
from trainer.training_set import Judged, Matrix
from trainer.workplace import Encoder

DEPTH = 100  # how far rankings are compared
SHOWN = 10  # what a user sees
PERSISTENCE = 0.9  # of the user of rank-biased overlap: the first ten ranks have 86% of the weight

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """`times`, (queries,): how often each was asked; `allowed`: rows that each filter lets through."""

    matrix: Matrix
    texts: tuple[str, ...]
    langs: tuple[str, ...]
    times: Doubles
    filters: tuple[int | None, ...]
    allowed: tuple[Rows, ...]
    relevant: tuple[tuple[str, ...], ...]
    searches: int
    left_out: int

    def judged(self) -> Judged:
        """Those of the queries of which something stored was judged relevant, each text once."""
        row_of = self.matrix.row_of()
        rows = {
            number: [row_of[each] for each in dict.fromkeys(ids) if each in row_of]
            for number, ids in enumerate(self.relevant)
        }
        kept = list({self.texts[number]: number for number, found in rows.items() if found}.values())
        return Judged(
            ids=tuple(str(number) for number in kept),
            texts=tuple(self.texts[number] for number in kept),
            langs=tuple(self.langs[number] for number in kept),
            relevant=tuple(np.array(rows[number], dtype=np.int64) for number in kept),
            missing=(),
        )


def read_replay(file: Path, matrix: Matrix) -> Replay:
    """What `app.replaying` wrote; ids that are not in the matrix are left out."""
    said = orjson.loads(file.read_bytes())
    row_of, queries = matrix.row_of(), said["queries"]
    return Replay(
        matrix=matrix,
        texts=tuple(each["query"] for each in queries),
        langs=tuple(each["lang"] for each in queries),
        times=np.array([each["times"] for each in queries], dtype=np.float64),
        filters=tuple(each["filter"] for each in queries),
        allowed=tuple(
            np.array(sorted(row_of[each] for each in ids if each in row_of), dtype=np.int64) for ids in said["filters"]
        ),
        relevant=tuple(tuple(each["relevant"]) for each in queries),
        searches=said["searches"],
        left_out=said["left_out"],
    )


def answers(encoder: Encoder, replay: Replay, should_stop: ShouldStop) -> list[Rows]:
    """The rows of each query's first hundred passages, best first."""
    vectors = embed(encoder.model, replay.texts, prompt=encoder.query_prompt, should_stop=should_stop)
    found: list[Rows] = [np.empty(0, dtype=np.int64)] * len(replay.texts)
    for filter in dict.fromkeys(replay.filters):
        asked = [number for number, each in enumerate(replay.filters) if each == filter]
        rows = np.arange(len(replay.matrix.ids)) if filter is None else replay.allowed[filter]
        for number, best in zip(asked, _best(vectors[asked], replay.matrix.vectors, rows, should_stop), strict=True):
            found[number] = best
    return found


def _best(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], rows: Rows, should_stop: ShouldStop
) -> list[Rows]:
    """The first `DEPTH` of `rows` for each query, (q, dim), by inner product; of equals the lower row comes first."""
    found: list[Rows] = []
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        scores = np.empty((len(block), 0), dtype=np.float32)
        places = np.empty((len(block), 0), dtype=np.int64)
        for first in range(0, len(rows), PASSAGE_BLOCK):
            check(should_stop)
            some = rows[first : first + PASSAGE_BLOCK]
            scores = np.hstack([scores, block @ vectors[some].T])
            places = np.hstack([places, np.broadcast_to(some, (len(block), len(some)))])
            order = np.lexsort((places, -scores), axis=1)[:, :DEPTH]
            scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
        found += list(places)
    return found


def compare_answers(replay: Replay, before: Sequence[Rows], after: Sequence[Rows], *, sample: int) -> dict[str, Any]:
    """Means over the searches, whole and by language, and the `sample` queries whose answers changed most."""
    values = {
        "overlap": np.array([overlap(*pair) for pair in zip(before, after, strict=True)]),
        "rbo": np.array([rank_biased_overlap(*pair) for pair in zip(before, after, strict=True)]),
        "first_changed": np.array([list(a[:1]) != list(b[:1]) for a, b in zip(before, after, strict=True)]),
        "churn": np.array([churn(*pair) for pair in zip(before, after, strict=True)]),
    }
    langs = np.array(replay.langs)
    by_language = {str(lang): _means(values, replay.times, langs == lang) for lang in sorted(set(replay.langs) - {""})}
    whole = _means(values, replay.times, np.ones(len(langs), dtype=bool))
    order = np.argsort(values["rbo"], kind="stable")[:sample]
    changes = [_change(replay, before, after, int(n), values) for n in order if values["rbo"][n] < 1 - 1e-9]
    return whole | {"languages": by_language, "changes": changes}


def overlap(before: Rows, after: Rows) -> float:
    """The share of the first ten that both have."""
    one, other = before[:SHOWN], after[:SHOWN]
    return len(set(one.tolist()) & set(other.tolist())) / len(one) if len(one) else 1.0


def rank_biased_overlap(before: Rows, after: Rows) -> float:
    """RBO_ext of two rankings of the same length k, from 0 (nothing in common) to 1 (the same).

    With X_d the number of passages that both have among their first d, and p the persistence:
    X_k / k * p^k + (1 - p) / p * sum over d <= k of X_d / d * p^d
    (Webber, Moffat, Zobel, "A similarity measure for indefinite rankings", ACM TOIS 28(4), 2010; extrapolated).
    """
    depth = len(before)
    if depth == 0:
        return 1.0
    place = {row: at for at, row in enumerate(after.tolist())}
    both = np.zeros(depth)  # at which depth a passage of both is one of both
    for at, row in enumerate(before.tolist()):
        if row in place:
            both[max(at, place[row])] += 1
    depths = np.arange(1, depth + 1)
    agreement = np.cumsum(both) / depths  # X_d / d
    weights = PERSISTENCE**depths
    return float(agreement[-1] * weights[-1] + (1 - PERSISTENCE) / PERSISTENCE * np.sum(agreement * weights))


def churn(before: Rows, after: Rows) -> float:
    """By how many ranks the first ten moved, on the average; one that left the first hundred is taken for the next."""
    place = {row: at for at, row in enumerate(after.tolist())}
    moved = [abs(place.get(row, len(after)) - at) for at, row in enumerate(before[:SHOWN].tolist())]
    return float(np.mean(moved)) if moved else 0.0


def _means(values: Mapping[str, NDArray[Any]], times: Doubles, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Every search counts, however often its query was asked."""
    means = {name: float(np.average(each[rows], weights=times[rows])) for name, each in values.items()}
    return {"searches": int(times[rows].sum())} | means


def _change(
    replay: Replay, before: Sequence[Rows], after: Sequence[Rows], number: int, values: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    def ids(rows: Rows) -> list[str]:
        return [replay.matrix.ids[row] for row in rows[:SHOWN]]

    return {
        "query": replay.texts[number],
        "lang": replay.langs[number],
        "times": int(replay.times[number]),
        "overlap": float(values["overlap"][number]),
        "rbo": float(values["rbo"][number]),
        "before": ids(before[number]),
        "after": ids(after[number]),
    }
