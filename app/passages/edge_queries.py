"""The searches that a store answers, as Qdrant Edge's requests: by vector, by words."""

import qdrant_edge as edge

from app.passages.fusion import DEPTH
from app.passages.lexical import LEXICAL, query_terms
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


def nearest(vector: Vector, filter: "edge.Filter | None", exact: bool) -> "edge.QueryRequest":
    """To be ranked: points and scores alone."""
    query, params = edge.Query.Nearest(vector.tolist(), DENSE), _params(exact, DEPTH)
    return edge.QueryRequest(limit=DEPTH, query=query, filter=filter, params=params, with_payload=False)


def by_words(text: str, filter: "edge.Filter | None") -> "edge.QueryRequest":
    """To be ranked: points and scores alone."""
    query = edge.Query.Nearest(edge.SparseVector(*query_terms(text)), LEXICAL)
    return edge.QueryRequest(limit=DEPTH, query=query, filter=filter, with_payload=False)


def _params(exact: bool, wanted: int) -> "edge.SearchParams":
    return edge.SearchParams(exact=exact, hnsw_ef=search_ef(wanted))
