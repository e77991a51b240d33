"""The tuning itself: one visible loop that moves the query encoder and nothing else."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from app.errors import InvalidField, TuningFailed
from app.recipe import Recipe
from trainer.batches import Batches
from trainer.checkpoints import Checkpoints
from trainer.embed import embed, forward, token_counts
from trainer.losses import excluded_columns, infonce, triplet
from trainer.mine import draw, mine
from trainer.parameters import Movement, choose_parameters, copy_parameters, movement
from trainer.schedule import rate_factor
from trainer.stopping import ShouldStop, Stopped, never
from trainer.training_set import TrainingSet

OnStep = Callable[[int, int, float], None]


def ignore_step(step: int, steps: int, loss: float) -> None:
    """For callers who do not watch."""


# Below this share of moved weights the rate was lost in fp32's rounding: the result would be the parent.
MIN_MOVED = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneResult:
    """What a tuning did; softening needs both states. The model holds `tuned` when `tune` returns."""

    start: dict[str, Tensor]  # the tuned parameters as they were
    tuned: dict[str, Tensor]  # and as they are
    losses: tuple[float, ...]  # one per step
    pairs: int
    seconds: float
    movement: Movement


def tune(
    model: SentenceTransformer,
    training: TrainingSet,
    recipe: Recipe,
    *,
    query_prompt: str = "",
    on_step: OnStep = ignore_step,
    should_stop: ShouldStop = never,
    checkpoints: Checkpoints | None = None,
) -> TuneResult:
    """Tunes `model`, the parent's query encoder, in place; the same input gives the same weights.

    With `checkpoints` it goes on from the newest one there, as if it had never stopped, and leaves its own.
    `on_step(step, steps, loss)` hears of every step, counted from 1. Raises Stopped when `should_stop()`
    says so, InvalidField for a recipe that does not fit the model, TuningFailed when the loss is no
    longer a number.
    """
    began = time.monotonic()
    model.float()  # a step of 2e-8 vanishes on a 16-bit weight
    parameters = choose_parameters(model, recipe.freeze)
    start = copy_parameters(parameters)
    texts, relevant, groups = training.queries.texts, training.queries.relevant, training.matrix.groups
    pair_query = np.repeat(np.arange(len(texts)), [len(rows) for rows in relevant])  # (pairs,)
    pair_row = np.concatenate(relevant)  # (pairs,)
    positive_groups = _padded([groups[rows] for rows in relevant])  # (queries, most positives)
    per_query = max(recipe.mined_negatives, 1) if recipe.loss == "triplet" else recipe.mined_negatives
    begun = checkpoints.newest() if checkpoints else None
    depth = recipe.mine_depth if per_query else 0
    negatives = begun.negatives if begun else _mine(model, training, depth, query_prompt, should_stop)

    lengths = token_counts(model, texts, query_prompt)[pair_query]  # (pairs,)
    batches = Batches(lengths, batch_size=recipe.batch_size, seed=recipe.seed)
    steps = recipe.epochs * batches.per_epoch
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    losses = list(begun.losses) if begun else []
    if begun:
        begun.restore(parameters, optimizer)

    def keep() -> None:
        if checkpoints:
            checkpoints.write(parameters, optimizer, negatives, losses)

    model.eval()  # dropout off: the run is a function of its batches alone
    for step in range(len(losses), steps):
        if should_stop():
            keep()
            raise Stopped
        batch = batches[step]
        asked = pair_query[batch]  # (batch,)
        drawn = draw(negatives[asked], per_query, seed=(recipe.seed, step))  # (batch, per_query)
        rows = np.concatenate([pair_row[batch], drawn[drawn >= 0]])  # (columns,)
        candidates = torch.from_numpy(training.matrix.vectors[rows]).to(model.device)  # (columns, dim)
        excluded = excluded_columns(torch.from_numpy(groups[rows]), torch.from_numpy(positive_groups[asked]))

        with _autocast(model.device):
            vectors = forward(model, [texts[i] for i in asked], query_prompt)  # (batch, dim)
        if recipe.loss == "triplet":
            loss = triplet(vectors, candidates, torch.from_numpy(drawn >= 0), margin=recipe.margin)
        else:
            loss = infonce(vectors, candidates, excluded.to(model.device), temperature=recipe.temperature)

        losses.append(_finite(float(loss.detach()), step, recipe))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.max_grad_norm)
        factor = rate_factor(step, steps, warmup=recipe.warmup, schedule=recipe.schedule)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor
        optimizer.step()
        on_step(step + 1, steps, losses[-1])
        if checkpoints and checkpoints.due():
            keep()
    keep()

    # A pooler that the chain does not use gets no gradient and no step; it is no part of the tuning.
    used = {name: parameter for name, parameter in parameters.items() if parameter in optimizer.state}
    tuned = copy_parameters(used)
    start = {name: start[name] for name in used}
    return TuneResult(
        start=start,
        tuned=tuned,
        losses=tuple(losses),
        pairs=len(pair_row),
        seconds=time.monotonic() - began,
        movement=_moved(movement(start, tuned), recipe),
    )


def _mine(
    model: SentenceTransformer, training: TrainingSet, depth: int, prompt: str, should_stop: ShouldStop
) -> NDArray[np.int64]:
    """The negatives that the parent, which `model` still is, finds: (queries, depth)."""
    if depth == 0:
        return np.empty((len(training.queries.texts), 0), dtype=np.int64)
    vectors = embed(model, training.queries.texts, prompt=prompt, should_stop=should_stop)
    return mine(vectors, training, depth=depth, should_stop=should_stop)


def _padded(groups: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    out = np.full((len(groups), max(len(each) for each in groups)), -1, dtype=np.int32)
    for i, each in enumerate(groups):
        out[i, : len(each)] = each
    return out


def _autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 for the matrix products on a GPU; the weights and their steps stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def _finite(loss: float, step: int, recipe: Recipe) -> float:
    if not math.isfinite(loss):
        raise TuningFailed(
            f"The loss became {loss} at step {step + 1}. The usual cause is the learning rate "
            f"({recipe.learning_rate:g}): try a tenth of it."
        )
    return loss


def _moved(moved: Movement, recipe: Recipe) -> Movement:
    if moved.share < MIN_MOVED:
        raise InvalidField(
            "recipe.learning_rate",
            f"at {recipe.learning_rate:g} only {moved.moved} of {moved.weights} weights moved: the steps are "
            "smaller than fp32 can add to a weight. Choose a larger rate.",
        )
    return moved
