"""Passages as Qdrant Edge's points, and back."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from app.passages import edge_booleans, lexical, payload
from app.passages.lexical import LEXICAL
from app.passages.payload import DENSE, point_id
from app.passages.store import Hit, Passage, Point, Vector


def to_point(point: Point, vector: Vector, *, with_terms: bool) -> "edge.Point":
    vectors: dict[str, Any] = {DENSE: vector.tolist()}
    if with_terms:
        vectors[LEXICAL] = _terms(point.passage)
    return edge.Point(point_id(point.passage.id), vectors, to_payload(point.passage, point.content_hash))


def to_payload(passage: Passage, content_hash: str) -> dict[str, Any]:
    told = payload.to_payload(passage, content_hash)
    return {**told, payload.OURS: {**told[payload.OURS], **edge_booleans.marks(passage.metadata)}}


def new_terms(passages: Sequence[Passage]) -> "edge.UpdateOperation":
    """Replaces the lexical vectors of stored passages."""
    vectors = [edge.PointVectors(point_id(one.id), {LEXICAL: _terms(one)}) for one in passages]
    return edge.UpdateOperation.update_vectors(vectors)


def ids_of(points: Sequence[Any]) -> list[UUID]:
    return [one.id for one in points]


def to_hit(scored: "edge.ScoredPoint") -> Hit:
    passage = payload.to_passage(scored.payload)
    return Hit(id=passage.id, score=scored.score, passage=passage, vector=payload.to_vector(scored.vector))


def _terms(passage: Passage) -> "edge.SparseVector":
    return edge.SparseVector(*lexical.passage_terms(passage))
