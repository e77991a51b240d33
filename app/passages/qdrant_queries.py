"""The searches that a store answers, as requests to a Qdrant server: by vector, by words."""

from qdrant_client import models

from app.passages.fusion import DEPTH
from app.passages.lexical import LEXICAL, Terms, query_terms
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


def nearest(vector: Vector, filter: models.Filter | None, params: models.SearchParams | None) -> models.QueryRequest:
    """To be ranked: points and scores alone."""
    return models.QueryRequest(query=vector.tolist(), using=DENSE, filter=filter, params=params, limit=DEPTH)


def by_words(text: str, filter: models.Filter | None) -> models.QueryRequest:
    """To be ranked: points and scores alone."""
    return models.QueryRequest(query=to_sparse(query_terms(text)), using=LEXICAL, filter=filter, limit=DEPTH)


def to_sparse(terms: Terms) -> models.SparseVector:
    return models.SparseVector(indices=terms.indices, values=terms.values)
