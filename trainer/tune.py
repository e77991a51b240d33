"""The tuning itself: one visible loop that moves the query encoder and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

from sentence_transformers import SentenceTransformer
from torch import Tensor

from app.errors import InvalidField, TuningFailed
from app.recipe import FixedRecipe
from trainer.checkpoints import Checkpoints, tensors_of
from trainer.lessons import Lessons, view_of_parent
from trainer.parameters import Movement, choose_parameters, copy_parameters, load_parameters, movement
from trainer.progress import Progress
from trainer.ranks import ALONE, Ranks, RanksLost
from trainer.stopping import ShouldStop, Stopped, check, never
from trainer.training_set import TrainingSet
from trainer.watch import Look, Watch, should_end

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
    looks: tuple[Look, ...]
    ended: str | None  # why it ended before its last step, in a sentence


def tune(
    model: SentenceTransformer,
    training: TrainingSet,
    recipe: FixedRecipe,
    *,
    query_prompt: str = "",
    on_step: OnStep = ignore_step,
    should_stop: ShouldStop = never,
    checkpoints: Checkpoints | None = None,
    watch: Watch | None = None,
    ranks: Ranks = ALONE,
) -> TuneResult:
    """Tunes `model`, the parent's query encoder, in place; the same input gives the same weights.

    With `checkpoints` it goes on from the newest one there, as if it had never stopped, and leaves its own.
    `on_step(step, steps, loss)` hears of every step, counted from 1. `watch` looks every `recipe.eval_every` steps;
    without one, `patience` and `drift_budget` have nothing to go by. Raises Stopped when `should_stop()` says so,
    InvalidField for a recipe that does not fit the model, TuningFailed when the loss is no longer a number or no
    look was within the drift budget. This is the first of `ranks`, whose others do the same steps (`trainer.assist`);
    RanksLost when one of them is gone.
    """
    model.float()  # a step of 2e-8 vanishes on a 16-bit weight
    model.zero_grad(set_to_none=True)  # what a tuning that failed has left would be added to the first step
    parameters = choose_parameters(model, recipe.freeze)
    start = copy_parameters(parameters)
    begun = checkpoints.newest() if checkpoints else None
    parent = begun.parent if begun else view_of_parent(model, training, recipe, query_prompt, should_stop)
    lessons = Lessons(model, training, recipe, parent, query_prompt, ranks)
    progress = Progress(parameters, parent, recipe, lessons.steps)
    if begun:
        begun.restore(progress)
    if ranks.size > 1:
        ranks.hand_out(tensors_of(progress, unmoved=True))

    def keep() -> None:
        if checkpoints:
            checkpoints.write(progress)

    model.eval()  # dropout off: the run is a function of its batches alone
    try:
        while True:
            if watch and progress.is_due():
                progress.look(watch, start)
                model.eval()
            ended = should_end(progress.looks, patience=recipe.patience, drift_budget=recipe.drift_budget)
            if ended or progress.done == lessons.steps:
                break
            check(should_stop)
            ranks.step()
            progress.advance(lessons.backward(progress.done))
            on_step(progress.done, lessons.steps, progress.losses[-1])
            if checkpoints and checkpoints.due():
                keep()
    except (Stopped, RanksLost):  # a step that was not done by all was done by none
        keep()
        raise
    seconds = progress.seconds
    keep()

    tuned = _result(progress, recipe, ended)
    load_parameters(parameters, tuned)
    start = {name: start[name] for name in tuned}
    return TuneResult(
        start=start,
        tuned=tuned,
        losses=tuple(progress.losses),
        pairs=lessons.pairs,
        seconds=seconds,
        movement=_moved(movement(start, tuned), recipe, learnt=progress.has_learnt),
        looks=tuple(progress.looks),
        ended=ended if progress.done < lessons.steps else None,
    )


def _result(progress: Progress, recipe: FixedRecipe, ended: str | None) -> dict[str, Tensor]:
    """The best weights looked at where the recipe asks for them, else the last."""
    if not (recipe.ends_early and progress.looks):
        return progress.result()
    if not progress.best:
        raise TuningFailed(
            f"{ended} No look before it was within. Choose a smaller learning_rate or a smaller eval_every, "
            "or a larger drift_budget."
        )
    return progress.best


def _moved(moved: Movement, recipe: FixedRecipe, *, learnt: bool) -> Movement:
    if recipe.loss == "infonce" and recipe.reach and not learnt:
        raise InvalidField(
            "recipe.reach",
            f"no query's passage was ever among the {recipe.reach} best, so nothing was learnt. Choose a larger "
            "number, or 0, with which all pairs teach.",
        )
    if moved.share < MIN_MOVED:
        raise InvalidField(
            "recipe.learning_rate",
            f"at {recipe.learning_rate:g} only {moved.moved} of {moved.weights} weights moved: the steps are "
            "smaller than fp32 can add to a weight. Choose a larger rate.",
        )
    return moved
