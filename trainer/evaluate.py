"""Quality before and after: one encoder's figures on every set, and the comparison that a job reports."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from trainer.embed import embed
from trainer.halves import clusters, split_halves
from trainer.metrics import Scores, drift, score
from trainer.statistics import compare_paired, holm, lower_bound
from trainer.stopping import ShouldStop, never
from trainer.training_set import Judged, Matrix

DEV = "dev"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """Judged queries and the matrix they search; dev shares the store's matrix, a guard may have its own."""

    matrix: Matrix
    queries: Judged


Sets = Mapping[str, EvaluationSet]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One encoder on one set: `vectors` of its queries, (queries, dim), and what they find."""

    vectors: NDArray[np.float32]
    scores: Scores


def halve(sets: Sets, *, seed: int = 0) -> tuple[Sets, Sets]:
    """The same sets with the queries of their (choose, prove) halves. Raises `BadDataset` naming one without two."""
    choose, prove = {}, {}
    for name, each in sets.items():
        one, other = split_halves(each.queries, seed=seed, name=name)
        choose[name] = EvaluationSet(matrix=each.matrix, queries=one)
        prove[name] = EvaluationSet(matrix=each.matrix, queries=other)
    return choose, prove


def measure(
    model: SentenceTransformer,
    sets: Sets,
    *,
    query_prompt: str = "",
    should_stop: ShouldStop = never,
) -> dict[str, Measured]:
    """`model` as query encoder on each set, per query."""
    measured = {}
    for name, each in sets.items():
        vectors = embed(model, each.queries.texts, prompt=query_prompt, should_stop=should_stop)
        scores = score(vectors, each.matrix.vectors, each.queries.relevant)
        measured[name] = Measured(vectors=vectors, scores=scores)
    return measured


def compare(
    before: Mapping[str, Measured], after: Mapping[str, Measured], sets: Sets, *, alpha: float = 0.05
) -> dict[str, Any]:
    """What changed from the base (`before`) to the tuned encoder, for the set named 'dev' and for the others, guards.

    Each has MRR@10 `before` and `after`, their difference (`gain` of dev, `change` of a guard) with its 95% interval
    `low`, `high` and two-sided `p`, `at_least`, the one-sided bound that the gate looks at, `relative` to before,
    `drift`, the number of `queries`, and all `metrics`, also by language where the queries say theirs. A guard's
    `p_holm` is adjusted over the guards; `guards_relative` is their mean, None without guards.
    """
    dev = {DEV: _figures(before[DEV], after[DEV], sets[DEV], "gain", alpha)} if DEV in before else {}
    guards = {name: _figures(before[name], after[name], sets[name], "change", alpha) for name in before if name != DEV}
    for name, p in holm({name: guard["p"] for name, guard in guards.items()}).items():
        guards[name]["p_holm"] = p
    relative = [guard["relative"] for guard in guards.values()]
    return dev | {"guards": guards, "guards_relative": float(np.mean(relative)) if guards else None}


def means(measured: Mapping[str, Measured]) -> dict[str, float]:
    """Mean MRR@10 by set."""
    return {name: float(each.scores.mrr.mean()) for name, each in measured.items()}


def _figures(before: Measured, after: Measured, over: EvaluationSet, difference: str, alpha: float) -> dict[str, Any]:
    pair = before.scores.mrr, after.scores.mrr
    cluster_of = clusters(over.queries)
    found = asdict(compare_paired(*pair, cluster_of))
    start, end = float(pair[0].mean()), float(pair[1].mean())
    return {
        "before": start,
        "after": end,
        difference: found.pop("mean"),
        **found,
        "at_least": lower_bound(*pair, cluster_of, alpha=alpha),
        # Where nothing was found before, nothing could be lost.
        "relative": (end - start) / start if start else 0.0,
        "drift": drift(before.vectors, after.vectors),
        "queries": len(cluster_of),
        "metrics": _metrics(before.scores, after.scores, np.ones(len(cluster_of), dtype=bool)),
        "languages": _languages(before.scores, after.scores, np.array(over.queries.langs)),
    }


def _languages(before: Scores, after: Scores, langs: NDArray[np.str_]) -> dict[str, Any]:
    return {
        str(lang): {"queries": int(np.sum(langs == lang)), **_metrics(before, after, langs == lang)}
        for lang in np.unique(langs)
        if lang
    }


def _metrics(before: Scores, after: Scores, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Mean of each metric before and after over the queries that `rows`, (queries,), marks."""
    return {
        field.name: {
            "before": float(getattr(before, field.name)[rows].mean()),
            "after": float(getattr(after, field.name)[rows].mean()),
        }
        for field in fields(Scores)
    }
