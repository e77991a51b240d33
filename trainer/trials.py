"""The tunings and measurements that a search asks for: always from the same parent, always against the base."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from app.recipe import FixedRecipe, Recipe
from trainer.checkpoints import Checkpoints, ignore, nothing
from trainer.embed import embed
from trainer.evaluate import DEV, Measured, Sets
from trainer.halves import clusters
from trainer.metrics import drift, mrr
from trainer.parameters import copy_parameters, load_parameters
from trainer.ranks import ALONE, Ranks
from trainer.search import Course, Point
from trainer.soften import load_softened
from trainer.soup import soup
from trainer.statistics import lower_bound, standard_error
from trainer.stopping import ShouldStop, never
from trainer.training_set import TrainingSet
from trainer.tune import OnStep, TuneResult, ignore_step, tune
from trainer.watch import Look

QUICK_QUERIES = 256  # of each set, where many trials are only to be told apart

Say = Callable[[str], None]
Looked = Callable[[int, Mapping[str, float], Mapping[str, float]], None]
Together = Callable[[FixedRecipe, int | None], AbstractContextManager[Ranks]]


def ignore_look(step: int, figures: Mapping[str, float], drifts: Mapping[str, float]) -> None:
    """For callers who do not watch."""


def alone(_recipe: FixedRecipe, _pairs: int | None) -> AbstractContextManager[Ranks]:
    """For callers without other processes."""
    return nullcontext(ALONE)


class Trials:
    """`model` is the parent and is tuned in place; `sets` are the choose halves and `before` is the base on them.

    `folder` keeps the checkpoints of tunings in full, `share` hears of each. `say` hears what is being done, `on_step`
    of every step, `log` what checkpoints have to say, `looked` of every look: the step, MRR@10 by set, drift by guard.
    `together` brings in the processes that help with a tuning, as `Ranks.tuning` does. `alpha` is the gate's.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        training: TrainingSet,
        recipe: Recipe,
        sets: Sets,
        before: Mapping[str, Measured],
        *,
        query_prompt: str = "",
        alpha: float,
        folder: Path,
        should_stop: ShouldStop = never,
        say: Say = ignore,
        log: Say = ignore,
        on_step: OnStep = ignore_step,
        looked: Looked = ignore_look,
        share: Callable[[], None] = nothing,
        together: Together = alone,
    ) -> None:
        self._model, self._prompt, self._training, self._recipe = model, query_prompt, training, recipe
        self._sets, self._before = sets, before
        self._alpha, self._folder, self._should_stop = alpha, folder, should_stop
        self._say, self._log, self._on_step, self._looked = say, log, on_step, looked
        self._share, self._together = share, together
        self._parameters = dict(model.named_parameters())
        self._start = copy_parameters(self._parameters)
        self._sample = {name: _lot(len(each.queries.ids), recipe.seed) for name, each in sets.items()}

    def tune(self, course: Course, pairs: int | None, runs: int) -> TuneResult:
        """See `search.Bench`."""
        if pairs is not None:
            self._say(f"tuning at {course.learning_rate:g}")
            return self._run(self._recipe.fixed(**asdict(course)), pairs)
        done: list[TuneResult] = []
        for seed in ((self._recipe.seed + run) % 2**31 for run in range(runs)):
            self._say(_called(course, len(done) + 1, runs))
            recipe = self._recipe.fixed(**asdict(course), seed=seed)
            kept = Checkpoints(self._folder / _folder_of(course, seed), say=self._log, share=self._share)
            done.append(self._run(recipe, None, kept, before=sum(len(run.losses) for run in done), runs=runs))
        return soup(done)

    def drop(self, course: Course) -> None:
        """See `search.Bench`."""
        shutil.rmtree(self._folder / _folder_of(course, self._recipe.seed), ignore_errors=True)

    def _run(
        self,
        recipe: FixedRecipe,
        pairs: int | None,
        checkpoints: Checkpoints | None = None,
        *,
        before: int = 0,
        runs: int = 1,
    ) -> TuneResult:
        """One tuning from the parent; its steps are told as those after `before`, looks with checkpoints alone."""
        load_parameters(self._parameters, self._start)

        def on_step(step: int, steps: int, loss: float) -> None:
            self._on_step(before + step, steps * runs, loss)

        def look(step: int, start: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> Look:
            return replace(self._look(before + step, start, tuned), step=step)

        with self._together(recipe, pairs) as ranks:
            return tune(
                self._model,
                self._training if pairs is None else self._training.sample(pairs, seed=recipe.seed),
                recipe,
                query_prompt=self._prompt,
                on_step=on_step,
                should_stop=self._should_stop,
                checkpoints=checkpoints,
                watch=look if checkpoints else None,
                ranks=ranks,
            )

    def measure(self, tuned: TuneResult, soften: float, quick: bool) -> Point:
        """See `search.Bench`."""
        self._say(f"measuring at a = {soften:g}")
        return self._point(tuned.start, tuned.tuned, soften, quick)

    def _look(self, step: int, start: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> Look:
        """What a tuning under way would give, on the sample; softened where the recipe says by how much."""
        soften = 1.0 if self._recipe.soften == "auto" else self._recipe.soften
        point = self._point(start, tuned, soften, quick=True)
        base = {name: float(self._before[name].scores.mrr[rows].mean()) for name, rows in self._sample.items()}
        found = {name: base[name] + change for name, change in {DEV: point.dev, **point.guards}.items()}
        self._looked(step, found, point.drifts)
        return Look(step=step, dev=base[DEV] + point.dev, drift=max(point.drifts.values(), default=0.0))

    def _point(self, start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], soften: float, quick: bool) -> Point:
        load_softened(self._model, start, tuned, soften)
        changes, drifts, at_least, error = {}, {}, {}, 0.0
        for name, each in self._sets.items():
            rows = self._sample[name] if quick else np.arange(len(each.queries.ids))
            queries, before = each.queries.take(rows.tolist()), self._before[name]
            vectors = embed(self._model, queries.texts, prompt=self._prompt, should_stop=self._should_stop)
            was, now = before.scores.mrr[rows], mrr(vectors, each.matrix.vectors, queries.relevant)
            changes[name] = float((now - was).mean())
            if not quick:
                at_least[name] = lower_bound(was, now, clusters(queries), alpha=self._alpha)
            if name == DEV:
                error = standard_error(now - was, clusters(queries))
            else:
                drifts[name] = drift(before.vectors[rows], vectors)
        return Point(
            soften=soften,
            dev=changes.pop(DEV),
            dev_error=error,
            guards=changes,
            drifts=drifts,
            at_least=at_least,
        )


def _called(course: Course, run: int, runs: int) -> str:
    which = f", run {run} of {runs}" if runs > 1 else ""
    epochs = f"{course.epochs} epoch{'s' if course.epochs > 1 else ''}"
    return f"tuning at {course.learning_rate:g}, {epochs}, reach {course.reach}, T {course.temperature:g}{which}"


def _folder_of(course: Course, seed: int) -> str:
    return "-".join(map(str, (*asdict(course).values(), seed)))


def _lot(count: int, seed: int) -> NDArray[np.int64]:
    """At most `QUICK_QUERIES` of so many queries, in their order."""
    drawn = np.random.default_rng(seed).permutation(count)[:QUICK_QUERIES]
    return np.sort(drawn)
