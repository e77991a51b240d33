"""The head of a model card: what the hub, and whoever sorts models by machine, reads of it. YAML, as the hub has it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from app.encoders.base import PACKAGED

PACKAGED_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "dense", "adiabat")
METRICS = {"mrr": "MRR@10", "ndcg": "nDCG@10", "recall_10": "Recall@10", "recall_100": "Recall@100"}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}")  # as ISO 639 has them; whatever else people call a language, the hub refuses


def card_head(name: str, dataset: str, result: Mapping[str, Any], *, passage_encoder: str) -> str:
    """Between the lines of dashes. `passage_encoder` is what the base was made from, as its manifest says."""
    sets = {f"{dataset}:dev": result["dev"]} | {
        guard if ":" in guard else f"{guard}:test": figures for guard, figures in result["guards"].items()
    }
    languages = sorted({lang for each in sets.values() for lang in each["languages"] if LANGUAGE.fullmatch(lang)})
    data = ModelCardData(
        model_name=name,
        language=languages or None,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=list(TAGS),
        base_model=hub_name(passage_encoder),
        metrics=[_type(metric) for metric in METRICS.values()],
        eval_results=[found for each in sets.items() for found in _results(*each)],
    )
    return f"---\n{data.to_yaml()}\n---"


def hub_name(said: str) -> str | None:
    """The hub's name of a passage encoder, where it has one: a folder here has none that anybody else knows."""
    if said == PACKAGED:
        return PACKAGED_ON_HUB
    return said if HUB_NAME.fullmatch(said) and not Path(said).exists() else None


def _results(dataset: str, figures: Mapping[str, Any]) -> Iterator[EvalResult]:
    """As sentence-transformers' own evaluators name them."""
    name, _, split = dataset.partition(":")
    for metric, shown in METRICS.items():
        yield EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type="unknown",
            dataset_name=name,
            dataset_split=split,
            metric_type=_type(shown),
            metric_name=f"Cosine {shown}",
            metric_value=round(figures["metrics"][metric]["after"], 4),
        )


def _type(shown: str) -> str:
    return f"cosine_{shown.lower()}"
