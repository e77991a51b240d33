"""The searches that a store answers, as requests to a Qdrant server: by vector, by words, by both."""

from qdrant_client import models

from app.passages.lexical import LEXICAL, RRF_K, Terms, fused_from, query_terms
from app.passages.payload import DENSE
from app.passages.store import Vector


def by_vector(
    vector: Vector,
    *,
    limit: int,
    offset: int,
    filter: models.Filter | None,
    score_threshold: float | None,
    params: models.SearchParams | None,
    with_vectors: bool,
) -> models.QueryRequest:
    return models.QueryRequest(
        query=vector.tolist(),
        using=DENSE,
        filter=filter,
        params=params,
        score_threshold=score_threshold,
        limit=limit,
        offset=offset,
        with_payload=True,
        with_vector=[DENSE] if with_vectors else False,
    )


def by_words(
    text: str, *, limit: int, offset: int, filter: models.Filter | None, score_threshold: float | None
) -> models.QueryRequest:
    return models.QueryRequest(
        query=to_sparse(query_terms(text)),
        using=LEXICAL,
        filter=filter,
        score_threshold=score_threshold,
        limit=limit,
        offset=offset,
        with_payload=True,
        with_vector=False,
    )


def by_both(
    vector: Vector,
    text: str,
    *,
    limit: int,
    offset: int,
    filter: models.Filter | None,
    score_threshold: float | None,
    params: models.SearchParams | None,
) -> models.QueryRequest:
    depth = fused_from(limit + offset)
    near = models.Prefetch(query=vector.tolist(), using=DENSE, filter=filter, params=params, limit=depth)
    words = models.Prefetch(query=to_sparse(query_terms(text)), using=LEXICAL, filter=filter, limit=depth)
    return models.QueryRequest(
        prefetch=[near, words],
        query=models.RrfQuery(rrf=models.Rrf(k=RRF_K)),
        score_threshold=score_threshold,
        limit=limit,
        offset=offset,
        with_payload=True,
        with_vector=False,
    )


def to_sparse(terms: Terms) -> models.SparseVector:
    return models.SparseVector(indices=terms.indices, values=terms.values)
