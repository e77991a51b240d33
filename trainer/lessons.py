"""What each step of a tuning learns from: its pairs, their negatives, the loss. A function of the step alone."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from app.errors import TuningFailed
from app.recipe import FixedRecipe
from trainer.batches import Batches
from trainer.embed import embed, forward, token_counts
from trainer.losses import drift, excluded_columns, infonce, triplet
from trainer.mine import draw, false_negative_ceilings, mine
from trainer.ranks import ALONE, Ranks
from trainer.stopping import ShouldStop
from trainer.training_set import TrainingSet


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentView:
    """What the parent makes of the training queries: found once, before the first step."""

    negatives: NDArray[np.int64]  # (queries, depth), -1 where there are no more
    vectors: NDArray[np.float32] | None  # (queries, dim), where a recipe needs them in every step


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    asked: NDArray[np.int64]  # (batch,), rows of the queries
    positives: Tensor  # (batch, dim)
    negatives: Tensor  # (drawn ones, dim), query after query
    drawn: Tensor  # (batch, per query) bool, where a query has a negative
    excluded: Tensor  # (batch, batch + drawn ones) bool, columns that a query must not see
    parent: Tensor | None  # (batch, dim), the parent's vectors of the queries


class Lessons:
    """The steps of one run over `model`: `backward(step)` adds a step's gradients to the parameters."""

    def __init__(
        self,
        model: SentenceTransformer,
        training: TrainingSet,
        recipe: FixedRecipe,
        parent: ParentView,
        prompt: str,
        ranks: Ranks = ALONE,
    ) -> None:
        self._model, self._training, self._recipe, self._parent, self._prompt = model, training, recipe, parent, prompt
        self._ranks = ranks
        texts, relevant, groups = training.queries.texts, training.queries.relevant, training.matrix.groups
        self._pair_query = np.repeat(np.arange(len(texts)), [len(rows) for rows in relevant])  # (pairs,)
        self._pair_row = np.concatenate(relevant)  # (pairs,)
        self._positive_groups = _padded([groups[rows] for rows in relevant])  # (queries, most positives)
        self._ceilings: NDArray[np.float32] | None = None  # (queries,)
        if parent.vectors is not None and recipe.false_negative_margin is not None:
            self._ceilings = false_negative_ceilings(parent.vectors, training, recipe.false_negative_margin)
        lengths = token_counts(model, texts, prompt)[self._pair_query]  # (pairs,)
        self._batches = Batches(lengths, batch_size=recipe.batch_size, seed=recipe.seed)
        self.pairs = len(self._pair_row)
        self.steps = recipe.epochs * self._batches.per_epoch

    def backward(self, step: int) -> float:
        """Adds the gradients of the batch of `step` (from 0) to those of the parameters and returns its loss.

        Each process takes an even share of the batch through its encoder, in `accumulate` parts. Every part sees all
        of the batch's passages, which need no encoder, so the sum over all parts is the whole batch's loss. Raises
        `TuningFailed` when that is no number, and what `Ranks.sum` raises.
        """
        tuned = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        total = self._ranks.sum(lambda: self._backward_share(step), tuned)
        if not math.isfinite(total):
            raise TuningFailed(
                f"The loss became {total} at step {step + 1}. The usual cause is the learning rate "
                f"({self._recipe.learning_rate:g}): try a tenth of it."
            )
        return total

    def _backward_share(self, step: int) -> float:
        batch, total = self._batch(step), 0.0
        shares = _parts(slice(0, len(batch.asked)), self._ranks.size)
        for share in shares[self._ranks.rank : self._ranks.rank + 1]:  # none, where the queries are too few for all
            for part in _parts(share, self._recipe.accumulate):
                loss = self._loss(batch, part)
                torch.autograd.backward(loss)
                total += float(loss.detach())
        return total

    def _batch(self, step: int) -> _Batch:
        matrix, device = self._training.matrix, self._model.device
        pairs = self._batches[step]
        asked, own = self._pair_query[pairs], self._pair_row[pairs]  # (batch,), (batch,)
        drawn = draw(self._parent.negatives[asked], negatives_per_query(self._recipe), seed=(self._recipe.seed, step))
        rows = np.concatenate([own, drawn[drawn >= 0], self.of_the_index(step)])  # (columns,)
        vectors = matrix.vectors[rows]  # (columns, dim)
        excluded = excluded_columns(
            torch.from_numpy(matrix.groups[rows]), torch.from_numpy(self._positive_groups[asked])
        )
        parent = None if self._parent.vectors is None else self._parent.vectors[asked]
        if parent is not None and self._ceilings is not None:
            excluded |= torch.from_numpy(parent @ vectors.T > self._ceilings[asked, None])
            excluded.fill_diagonal_(False)
        return _Batch(
            asked=asked,
            positives=torch.from_numpy(vectors[: len(own)]).to(device),
            negatives=torch.from_numpy(vectors[len(own) :]).to(device),
            drawn=torch.from_numpy(drawn >= 0),
            excluded=excluded.to(device),
            parent=None if parent is None else torch.from_numpy(parent).to(device),
        )

    def of_the_index(self, step: int) -> NDArray[np.int64]:
        """Rows that every query of the step is compared with, whatever the batch."""
        recipe, passages = self._recipe, len(self._training.matrix.ids)
        if recipe.loss == "triplet" or recipe.corpus_negatives >= passages:
            return np.arange(0 if recipe.loss == "triplet" else passages)
        return np.random.default_rng((recipe.seed, step, 1)).choice(passages, recipe.corpus_negatives, replace=False)

    def _loss(self, batch: _Batch, part: slice) -> Tensor:
        """The part's share in the batch's mean loss."""
        texts, recipe = self._training.queries.texts, self._recipe
        with _autocast(self._model.device):
            vectors = forward(self._model, [texts[row] for row in batch.asked[part]], self._prompt)  # (part, dim)
        queries_share = len(vectors) / len(batch.asked)
        if recipe.loss == "triplet":
            before, here, all_drawn = (int(batch.drawn[s].sum()) for s in (slice(part.start), part, slice(None)))
            negatives = batch.negatives[before : before + here]
            loss = triplet(vectors, batch.positives[part], negatives, batch.drawn[part], margin=recipe.margin)
            loss = loss * (here / max(all_drawn, 1))
        else:
            candidates = torch.cat([batch.positives, batch.negatives])  # (columns, dim)
            own = torch.arange(part.start, part.stop, device=vectors.device)
            loss = infonce(
                vectors,
                candidates,
                batch.excluded[part],
                own,
                temperature=recipe.temperature,
                reach=recipe.reach,
            )
            loss = loss * queries_share
        if recipe.drift_penalty and batch.parent is not None:
            loss = loss + recipe.drift_penalty * queries_share * drift(vectors, batch.parent[part])
        return loss


def view_of_parent(
    model: SentenceTransformer, training: TrainingSet, recipe: FixedRecipe, prompt: str, should_stop: ShouldStop
) -> ParentView:
    """What `model`, which still is the parent, makes of the queries; they are embedded only where it is needed."""
    depth = recipe.mine_depth if negatives_per_query(recipe) else 0
    margin = recipe.false_negative_margin
    in_every_step = margin is not None or recipe.drift_penalty > 0
    if not depth and not in_every_step:
        return ParentView(negatives=np.empty((len(training.queries.texts), 0), dtype=np.int64), vectors=None)
    vectors = embed(model, training.queries.texts, prompt=prompt, should_stop=should_stop)
    ceilings = None if margin is None else false_negative_ceilings(vectors, training, margin)
    return ParentView(
        negatives=mine(vectors, training, depth=depth, ceilings=ceilings, should_stop=should_stop),
        vectors=vectors if in_every_step else None,
    )


def negatives_per_query(recipe: FixedRecipe) -> int:
    """How many mined negatives a query gets in a step; the triplet loss cannot do without one."""
    return max(recipe.mined_negatives, 1) if recipe.loss == "triplet" else recipe.mined_negatives


def _parts(rows: slice, count: int) -> list[slice]:
    """`rows` in at most `count` even slices, none of them empty."""
    size = rows.stop - rows.start
    cuts = [len(part) for part in np.array_split(np.empty(size), min(count, size))]
    ends = (rows.start + np.cumsum(cuts)).tolist()
    return [slice(end - length, end) for end, length in zip(ends, cuts, strict=True)]


def _padded(groups: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    out = np.full((len(groups), max(len(each) for each in groups)), -1, dtype=np.int32)
    for i, each in enumerate(groups):
        out[i, : len(each)] = each
    return out


def _autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 for the matrix products on a GPU; the weights and their steps stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
