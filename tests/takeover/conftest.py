"""Collections as people make them: plain sentence-transformers and qdrant-client."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from sentence_transformers import SentenceTransformer

WORDS = ["water", "heart", "pump", "pain", "engine", "oil", "filter", "sleep", "light", "fire", "night", "doctor"]

Made = Callable[..., str]


def text_of(number: int) -> str:
    return f"{WORDS[number % 12]} {WORDS[number // 12 % 12]} {number} " + WORDS[number % 7] * (number % 3)


def encode(model: Path, texts: Sequence[str], prompt: str | None = None, max_length: int | None = None) -> Any:
    loaded = SentenceTransformer(str(model), device="cpu")
    if max_length is not None:
        loaded.max_seq_length = max_length
    return loaded.encode(list(texts), prompt=prompt, show_progress_bar=False)


@pytest.fixture
def local() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


def fill(
    client: QdrantClient,
    vectors: Any,
    payloads: Sequence[dict[str, Any]],
    *,
    distance: models.Distance = models.Distance.COSINE,
    ids: Sequence[int | str] | None = None,
) -> str:
    """The name of a new collection with these points."""
    name = f"theirs_{uuid.uuid4().hex[:12]}"
    params = models.VectorParams(size=len(vectors[0]), distance=distance)
    client.create_collection(name, vectors_config=params)
    points = [
        models.PointStruct(id=id, vector=[float(x) for x in vector], payload=payload)
        for id, vector, payload in zip(ids or range(len(vectors)), vectors, payloads, strict=True)
    ]
    for at in range(0, len(points), 200):
        client.upsert(name, points[at : at + 200])
    return name
