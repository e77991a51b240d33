"""The two losses. Passage vectors are data here, never parameters: only the query side has a gradient."""

import torch
from torch import Tensor
from torch.nn import functional


def infonce(
    queries: Tensor, candidates: Tensor, excluded: Tensor, own: Tensor, *, temperature: float, reach: int = 0
) -> Tensor:
    """Mean cross-entropy of each query's own passage among the candidates (van den Oord et al. 2018).

    queries: (part, dim), normalised; candidates: (columns, dim), normalised; excluded: (part, columns) bool,
    columns that a query must not see; own: (part,), the column of each query's own passage. With a `reach` above 0 a
    query whose own passage is not among so many best has no gradient; it counts in the mean all the same, so that parts
    of a batch add up and the losses of two steps compare.
    """
    logits = (queries @ candidates.T / temperature).masked_fill(excluded, float("-inf"))  # (part, columns)
    losses = functional.cross_entropy(logits, own, reduction="none")  # (part,)
    if reach:
        better = (logits > logits.gather(1, own[:, None])).sum(dim=1)  # (part,)
        losses = torch.where(better < reach, losses, losses.detach())
    return losses.mean()


def triplet(queries: Tensor, positives: Tensor, negatives: Tensor, drawn: Tensor, *, margin: float) -> Tensor:
    """Mean over the drawn triplets of max(0, d(q, p) - d(q, n) + margin), d being the cosine distance.

    queries, positives: (part, dim), normalised; negatives: (triplets, dim), normalised, query after query; drawn:
    (part, most negatives) bool, true where a query has one. Without any negative the loss is 0.
    """
    owner = drawn.nonzero()[:, 0].to(queries.device)  # (triplets,)
    positive = (queries * positives).sum(dim=1)  # (part,)
    negative = (queries[owner] * negatives).sum(dim=1)  # (triplets,)
    losses = functional.relu(negative - positive[owner] + margin)  # d(q, p) - d(q, n) = q.n - q.p
    return losses.sum() / max(len(owner), 1)


def drift(queries: Tensor, parent: Tensor) -> Tensor:
    """Mean of 1 - cos(parent(q), tuned(q)); both (part, dim), normalised."""
    return 1 - (queries * parent).sum(dim=1).mean()


def excluded_columns(groups: Tensor, positive_groups: Tensor) -> Tensor:
    """Which candidates a query must not be compared with: (batch, columns) bool.

    groups: (columns,), the text group of each candidate, the first `batch` being the queries' own passages;
    positive_groups: (batch, width), the groups of all of a query's positives, padded with -1.

    Excluded are other positives of the query, passages with the text of one, and every repetition of a
    text after its first column (a passage that is there twice would weigh double). A query's own column
    never is.
    """
    batch, columns = len(positive_groups), len(groups)
    known, place = torch.unique(groups, return_inverse=True)  # (texts,), (columns,)
    found = torch.searchsorted(known, positive_groups).clamp(max=len(known) - 1)  # (batch, width)
    found = torch.where(known[found] == positive_groups, found, len(known))
    positive = torch.zeros(batch, len(known) + 1, dtype=torch.bool, device=groups.device)
    positive.scatter_(1, found, True)
    number = torch.arange(columns, device=groups.device)
    first = torch.full_like(known, columns, dtype=torch.int64).scatter_reduce(0, place, number, "amin")  # (texts,)
    excluded = positive[:, place] | (first[place] != number)[None, :]
    own = number[:batch]
    excluded[own, own] = False
    return excluded
