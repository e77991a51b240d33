"""Passages as the points of a Qdrant server, and back."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from app.passages import lexical, payload
from app.passages.lexical import LEXICAL
from app.passages.payload import DENSE, point_id
from app.passages.qdrant_queries import to_sparse
from app.passages.store import Hit, Passage, Point, Vector


def to_point(point: Point, vector: Vector, *, with_terms: bool) -> models.PointStruct:
    told = payload.to_payload(point.passage, point.content_hash)
    id = str(point_id(point.passage.id))
    vectors: dict[str, Any] = {DENSE: vector.tolist()}
    if with_terms:
        vectors[LEXICAL] = to_sparse(lexical.passage_terms(point.passage))
    return models.PointStruct(id=id, vector=vectors, payload=told)


def new_terms(passages: Sequence[Passage]) -> models.UpdateVectors:
    """Replaces the lexical vectors of stored passages."""
    return models.UpdateVectors(
        points=[
            models.PointVectors(id=str(point_id(one.id)), vector={LEXICAL: to_sparse(lexical.passage_terms(one))})
            for one in passages
        ]
    )


def to_overwrite(id: str, told: dict[str, Any]) -> models.OverwritePayloadOperation:
    change = models.SetPayload(payload=told, points=[str(point_id(id))])
    return models.OverwritePayloadOperation(overwrite_payload=change)


def to_hit(scored: models.ScoredPoint) -> Hit:
    passage = payload.to_passage(scored.payload)
    return Hit(id=passage.id, score=scored.score, passage=passage, vector=payload.to_vector(scored.vector))
