"""Quality before and after: one encoder's figures on every set, and the comparison that a job reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer

from trainer.embed import embed
from trainer.metrics import Scores, score
from trainer.stopping import ShouldStop, never
from trainer.training_set import Judged, Matrix

DEV = "dev"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """Judged queries and the matrix they search; dev shares the store's matrix, a guard may have its own."""

    matrix: Matrix
    queries: Judged


def measure(
    model: SentenceTransformer,
    sets: Mapping[str, EvaluationSet],
    *,
    query_prompt: str = "",
    should_stop: ShouldStop = never,
) -> dict[str, Scores]:
    """The scores of `model` as query encoder on each set, per query."""
    return {
        name: score(
            embed(model, each.queries.texts, prompt=query_prompt, should_stop=should_stop),
            each.matrix.vectors,
            each.queries.relevant,
        )
        for name, each in sets.items()
    }


def compare(before: Mapping[str, Scores], after: Mapping[str, Scores]) -> dict[str, Any]:
    """Mean MRR@10 before and after: the set named 'dev' apart, the others guards with their relative change.

    `guards_relative` is the mean over the guards; None without guards.
    """
    guards = {name: _change(before[name], after[name]) for name in before if name != DEV}
    for change in guards.values():
        # A guard on which nothing was found before cannot lose anything.
        change["relative"] = (change["after"] - change["before"]) / change["before"] if change["before"] else 0.0
    report: dict[str, Any] = {"guards": guards}
    if DEV in before:
        report["dev"] = _change(before[DEV], after[DEV])
    report["guards_relative"] = sum(g["relative"] for g in guards.values()) / len(guards) if guards else None
    return report


def _change(before: Scores, after: Scores) -> dict[str, float]:
    return {"before": float(before.mrr.mean()), "after": float(after.mrr.mean())}
