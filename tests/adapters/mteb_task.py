"""A retrieval task of MTEB's shape with its data at hand: a part of the samples."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from app.beir import read_jsonl, read_qrels

SAMPLES = Path(__file__).parents[2] / "samples"
PASSAGES = 80


def corpus() -> list[dict[str, str]]:
    rows = [row for _, row in read_jsonl(SAMPLES / "corpus.jsonl")][:PASSAGES]
    return [{"id": row["_id"], "title": row["title"], "text": row["text"]} for row in rows]


def relevant() -> dict[str, dict[str, int]]:
    here = {passage["id"] for passage in corpus()}
    found: dict[str, dict[str, int]] = {}
    for _, query, passage, _ in read_qrels(SAMPLES / "qrels" / "test.tsv"):
        if passage in here:
            found.setdefault(query, {})[passage] = 1
    return found


def queries() -> list[dict[str, str]]:
    judged = relevant()
    rows = (row for _, row in read_jsonl(SAMPLES / "queries.jsonl"))
    return [{"id": row["_id"], "text": row["text"]} for row in rows if row["_id"] in judged]


class Bees(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="Bees",
        description="Questions of people who do not know a beekeeper's words.",
        dataset={"path": "samples", "revision": "1"},
        type="Retrieval",
        category="t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def load_data(self, *_: Any, **__: Any) -> None:
        held = {"corpus": Dataset.from_list(corpus()), "queries": Dataset.from_list(queries())}
        self.dataset = {"default": {"test": held | {"relevant_docs": relevant(), "top_ranked": None}}}
        self.data_loaded = True
