"""The searches that a store answers, as Qdrant Edge's requests: by vector, by words, by both."""

from typing import Any

import qdrant_edge as edge

from app.passages.lexical import LEXICAL, RRF_K, fused_from, query_terms
from app.passages.payload import DENSE, search_ef
from app.passages.store import Vector


def by_vector(
    vector: Vector,
    *,
    limit: int,
    offset: int,
    filter: "edge.Filter | None",
    score_threshold: float | None,
    exact: bool,
    with_vectors: bool,
) -> "edge.QueryRequest":
    return edge.QueryRequest(
        limit=limit,
        offset=offset,
        query=edge.Query.Nearest(vector.tolist(), DENSE),
        filter=filter,
        score_threshold=score_threshold,
        params=_params(exact, limit + offset),
        with_payload=True,
        with_vector=[DENSE] if with_vectors else False,
    )


def by_words(
    text: str, *, limit: int, offset: int, filter: "edge.Filter | None", score_threshold: float | None
) -> "edge.QueryRequest":
    return edge.QueryRequest(
        limit=limit,
        offset=offset,
        query=_words(text),
        filter=filter,
        score_threshold=score_threshold,
        with_payload=True,
        with_vector=False,
    )


def by_both(
    vector: Vector,
    text: str,
    *,
    limit: int,
    offset: int,
    filter: "edge.Filter | None",
    score_threshold: float | None,
    exact: bool,
) -> "edge.QueryRequest":
    depth = fused_from(limit + offset)
    near = edge.Prefetch(
        limit=depth,
        query=edge.Query.Nearest(vector.tolist(), DENSE),
        filter=filter,
        params=_params(exact, depth),
    )
    fusion: Any = edge.Fusion.Rrf(k=RRF_K)  # a Fusion, which its stubs do not say
    return edge.QueryRequest(
        limit=limit,
        offset=offset,
        query=fusion,
        prefetches=[near, edge.Prefetch(limit=depth, query=_words(text), filter=filter)],
        score_threshold=score_threshold,
        with_payload=True,
        with_vector=False,
    )


def _params(exact: bool, wanted: int) -> "edge.SearchParams":
    return edge.SearchParams(exact=exact, hnsw_ef=search_ef(wanted))


def _words(text: str) -> "edge.Query":
    return edge.Query.Nearest(edge.SparseVector(*query_terms(text)), LEXICAL)
