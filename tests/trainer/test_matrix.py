from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.errors import BadDataset
from tests.tiny import build_tiny
from trainer.matrix import corpus_matrix
from trainer.stopping import Stopped

CORPUS = """{"_id": "a", "title": "heart", "text": "pump and valve"}
{"_id": "b", "title": "", "text": "water engine filter oil repair cost doctor pain sleep light fire night"}
{"_id": "c", "text": "leak"}

{"_id": "d", "title": null, "text": "leak"}
"""
TEXTS = [
    "heart\npump and valve",
    "water engine filter oil repair cost doctor pain sleep light fire night",
    "leak",
    "leak",
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text(CORPUS)
    return path


def test_rows_are_what_the_model_says_of_prompt_title_and_text(corpus: Path, tmp_path: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    model = SentenceTransformer(str(build_tiny(tmp_path / "tiny", prompts=prompts)), device="cpu")
    matrix = corpus_matrix(model, corpus, tmp_path / "cache", encoder_digest="d", passage_prompt="passage: ")
    wanted = model.encode([f"passage: {text}" for text in TEXTS], prompt="", normalize_embeddings=True)
    assert np.abs(matrix.vectors - wanted).max() < 1e-5
    assert matrix.ids == ("a", "b", "c", "d")
    assert matrix.groups[2] == matrix.groups[3] != matrix.groups[0]


def test_a_matrix_is_embedded_once_for_the_same_corpus_encoder_and_prompt(
    tiny: SentenceTransformer, corpus: Path, tmp_path: Path
) -> None:
    embedded: list[int] = []

    def get(digest: str, prompt: str = "") -> None:
        corpus_matrix(
            tiny,
            corpus,
            tmp_path / "cache",
            encoder_digest=digest,
            passage_prompt=prompt,
            on_progress=lambda done, _: embedded.append(done),
        )

    get("one")
    first = len(embedded)
    get("one")
    assert len(embedded) == first > 0
    get("two")
    get("one", "passage: ")
    corpus.write_text(CORPUS.replace("pump", "engine"))
    get("one")
    assert len(embedded) == 4 * first
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_stopped_embedding_leaves_nothing_behind(tiny: SentenceTransformer, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        corpus_matrix(tiny, corpus, tmp_path / "cache", encoder_digest="d", should_stop=lambda: True)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("content", ["", "\n", '{"_id": "a"}', "nonsense", '{"_id": "a", "text": ""}', "[1]"])
def test_a_corpus_that_cannot_be_read_is_refused(
    tiny: SentenceTransformer, corpus: Path, tmp_path: Path, content: str
) -> None:
    corpus.write_text(content)
    with pytest.raises(BadDataset, match="corpus"):
        corpus_matrix(tiny, corpus, tmp_path / "cache", encoder_digest="d")
