"""A small world for the trainer: a tiny random encoder, passages embedded by it, and queries about them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.tiny import build_tiny
from trainer.matrix import corpus_matrix
from trainer.training_set import TrainingSet, read_matrix, read_training_set

WORDS = ["heart", "valve", "pump", "leak", "pressure", "water", "engine", "filter"]
WORDS += ["oil", "repair", "pain", "sleep", "light", "fire", "night", "cost"]

QUERIES_A_PASSAGE = 3

WriteDataset = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture
def tiny(tiny_folder: Path) -> SentenceTransformer:
    """A fresh encoder for each test: tuning changes it."""
    return SentenceTransformer(str(tiny_folder), device="cpu")


def write_matrix(folder: Path, vectors: np.ndarray, groups: Sequence[int] | None = None) -> Path:
    """A matrix folder as the service's export writes it; row i is passage 'p{i}'."""
    folder.mkdir(parents=True, exist_ok=True)
    count, dim = vectors.shape
    np.save(folder / "vectors.npy", vectors.astype(np.float32))
    np.save(folder / "groups.npy", np.array(range(count) if groups is None else groups, dtype=np.int32))
    (folder / "ids.json").write_text(json.dumps([f"p{i}" for i in range(count)]))
    (folder / "meta.json").write_text(json.dumps({"count": count, "dim": dim, "writes": 1, "index_space": {}}))
    return folder


def write_dataset(
    folder: Path,
    queries: Sequence[tuple[str, str]],
    qrels: Sequence[tuple[str, str, int]],
    *,
    split: str = "train",
    corpus: Sequence[tuple[str, str]] = (),
) -> Path:
    """A BEIR folder from (id, text) and (query id, passage id, score)."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"_id": i, "text": text, "metadata": {}}) for i, text in queries]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    rows = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    if corpus:
        lines = [json.dumps({"_id": i, "title": "", "text": text}) for i, text in corpus]
        (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def unit(values: object) -> np.ndarray:
    array = np.asarray(values, dtype=np.float32)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


@pytest.fixture(scope="session")
def world(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 passages and 72 queries, three for each passage with words of it, and their matrix beside them."""
    rng = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("world")
    passages = [" ".join(rng.choice(WORDS, size=6, replace=False)) for _ in range(24)]
    queries, qrels = [], []
    for i, text in enumerate(passages):
        for j in range(QUERIES_A_PASSAGE):
            asked = " ".join(rng.choice(text.split(), size=3, replace=False))
            queries.append((f"q{i}-{j}", f"what is {asked}"))
            qrels.append((f"q{i}-{j}", f"p{i}", 1))
    corpus = [(f"p{i}", text) for i, text in enumerate(passages)]
    dataset = write_dataset(folder / "dataset", queries, qrels, corpus=corpus)
    model = SentenceTransformer(str(tiny_folder), device="cpu")
    corpus_matrix(model, dataset / "corpus.jsonl", folder / "matrices", encoder_digest="tiny")
    return folder


@pytest.fixture
def training(world: Path) -> TrainingSet:
    (folder,) = (world / "matrices").iterdir()
    assert read_matrix(folder).vectors.shape == (24, 32)
    return read_training_set(folder, world / "dataset")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """An engine that an earlier test loaded may have set another number."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is the tests', and would stay idle: all that it starts too."""
    monkeypatch.setattr("trainer.worker.be_idle", lambda: None)
