"""The head of a card is YAML that the hub's own library reads back, with what a reader by machine looks for."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from app.encoders.base import PACKAGED
from trainer.card_head import card_head, hub_name


def figures(after: float, *languages: str) -> dict[str, Any]:
    metrics = {name: {"before": 0.0, "after": after} for name in ("mrr", "ndcg", "recall_10", "recall_100", "triplets")}
    return {"metrics": metrics, "languages": dict.fromkeys(languages)}


RESULT = {"dev": figures(0.51239, "en"), "guards": {"xquad:no": figures(0.25, "no", "Klingon"), "trivia": figures(1.0)}}


def read(**changed: Any) -> ModelCard:
    head = card_head("bees", "beekeeping", RESULT, passage_encoder="intfloat/multilingual-e5-small", **changed)
    return ModelCard(f"{head}\n\n# bees\n")


def test_it_says_what_the_encoder_is_and_was_made_from() -> None:
    data = read().data
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert {"sentence-transformers", "feature-extraction", "adiabat"} <= set(data.tags)
    assert data.base_model == "intfloat/multilingual-e5-small"
    assert data.language == ["en", "no"]  # "no" is no boolean, and what is no code is no language to the hub


def test_it_has_the_figures_after_the_tuning_by_set_and_metric() -> None:
    results = read().data.eval_results
    found = {(each.dataset_name, each.dataset_split, each.metric_type): each.metric_value for each in results}
    assert found["beekeeping", "dev", "cosine_mrr@10"] == 0.5124
    assert found["xquad", "no", "cosine_ndcg@10"] == 0.25
    assert found["trivia", "test", "cosine_recall@100"] == 1.0
    assert len(found) == 12


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (PACKAGED, "sentence-transformers/all-MiniLM-L6-v2"),
        ("intfloat/e5", "intfloat/e5"),
        ("/srv/models/e5", None),
        ("e5", None),
        ("", None),
    ],
)
def test_only_a_name_that_others_know_is_the_base_model(said: str, name: str | None) -> None:
    assert hub_name(said) == name


def test_a_folder_here_is_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "e5").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_name("models/e5") is None


def test_without_languages_and_a_name_nothing_is_said_of_them() -> None:
    result = {"dev": figures(0.5), "guards": {}}
    head = card_head("bees", "beekeeping", result, passage_encoder="")
    assert "language:" not in head
    assert "base_model" not in head
