"""Both adapters, real: Edge in a temporary folder, the server's through qdrant-client's local mode."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from app.passages import IndexSpace, Passage, PassageStore, Point
from app.passages.edge import EdgeStore
from app.passages.qdrant import QdrantStore

DIM = 8
SPACE = IndexSpace(passage_encoder_digest="sha256:one", dimension=DIM)

OpenEdge = Callable[..., EdgeStore]


def unit_vectors(count: int, dimension: int = DIM, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def points(count: int, seed: int = 0, dimension: int = DIM) -> list[Point]:
    vectors = unit_vectors(count, dimension, seed)
    return [
        Point(
            passage=Passage(id=f"p{i}", text=f"text {i}", title=f"title {i}", metadata={"n": i}),
            content_hash=f"{seed}:{i}",
            vector=vectors[i],
        )
        for i in range(count)
    ]


@pytest.fixture
def open_edge(tmp_path: Path) -> Iterator[OpenEdge]:
    """Opens Edge stores below tmp_path and closes those that the test left open."""
    opened: list[EdgeStore] = []

    def opening(space: IndexSpace = SPACE, **options: object) -> EdgeStore:
        opened.append(EdgeStore(tmp_path / "passages", space, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield opening
    for store in opened:
        store.close()


@pytest.fixture(params=["edge", "qdrant"])
def store(request: pytest.FixtureRequest, open_edge: OpenEdge) -> Iterator[PassageStore]:
    if request.param == "edge":
        yield open_edge(indexed_fields=["lang"])
        return
    server = QdrantStore(QdrantClient(":memory:"), "passages", SPACE, indexed_fields=["lang"])
    yield server
    server.close()
