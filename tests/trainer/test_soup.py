"""The mean of several runs: of their weights, and told as one tuning."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from app.recipe import Recipe
from trainer.evaluate import DEV, EvaluationSet, measure
from trainer.search import first
from trainer.soup import soup
from trainer.training_set import TrainingSet
from trainer.trials import Trials
from trainer.tune import TuneResult, tune

RECIPE = Recipe(learning_rate=1e-3, epochs=2, batch_size=16, corpus_negatives=8, eval_every=3, seed=7)


def run(folder: Path, training: TrainingSet, seed: int) -> TuneResult:
    model = SentenceTransformer(str(folder), device="cpu")
    return tune(model, training, RECIPE.fixed(learning_rate=1e-3, epochs=2, seed=seed))


def test_runs_from_several_seeds_are_averaged_weight_by_weight(tiny_folder: Path, training: TrainingSet) -> None:
    runs = [run(tiny_folder, training, seed) for seed in (7, 8, 9)]
    mean = soup(runs)
    for name, value in mean.tuned.items():
        expected = sum(each.tuned[name].double() for each in runs) / 3
        assert torch.allclose(value.double(), torch.as_tensor(expected), rtol=1e-6, atol=1e-8)
        assert value.dtype == torch.float32
    assert mean.losses == tuple(itertools.chain.from_iterable(each.losses for each in runs))
    assert mean.movement.mean_change < max(each.movement.mean_change for each in runs)
    assert soup(runs[:1]) is runs[0]


def test_runs_are_told_as_one_tuning_and_each_goes_on_from_its_own_checkpoint(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    def tuned() -> tuple[TuneResult, list[tuple[int, int]], list[int], list[str]]:
        model = SentenceTransformer(str(tiny_folder), device="cpu")
        sets = {DEV: EvaluationSet(matrix=training.matrix, queries=training.queries)}
        steps: list[tuple[int, int]] = []
        looks: list[int] = []
        said: list[str] = []
        trials = Trials(
            model,
            training,
            RECIPE,
            sets,
            measure(model, sets),
            alpha=0.05,
            folder=tmp_path,
            say=said.append,
            on_step=lambda step, of, _: steps.append((step, of)),
            looked=lambda step, *_: looks.append(step),
        )
        return trials.tune(replace(first(RECIPE), learning_rate=1e-3, epochs=2), None, 2), steps, looks, said

    result, steps, looks, said = tuned()
    assert steps == [(step, len(steps)) for step in range(1, len(steps) + 1)]
    assert looks == [look.step for look in result.looks]
    assert looks == sorted(set(looks))
    assert max(looks) > len(steps) // 2  # the second run's come after the first's
    assert said == [f"tuning at 0.001, 2 epochs, reach 10, T 0.045, run {run} of 2" for run in (1, 2)]
    expected = soup([run(tiny_folder, training, seed) for seed in (7, 8)])
    again, repeated, _, _ = tuned()
    assert repeated == []
    for name, value in expected.tuned.items():
        assert torch.equal(result.tuned[name], value)
        assert torch.equal(again.tuned[name], value)


@pytest.mark.parametrize("seed", [2**31 - 1])
def test_the_last_seed_has_a_next_one(tiny_folder: Path, training: TrainingSet, tmp_path: Path, seed: int) -> None:
    model = SentenceTransformer(str(tiny_folder), device="cpu")
    sets = {DEV: EvaluationSet(matrix=training.matrix, queries=training.queries)}
    recipe = Recipe(learning_rate=1e-3, batch_size=16, corpus_negatives=8, seed=seed)
    trials = Trials(model, training, recipe, sets, measure(model, sets), alpha=0.05, folder=tmp_path)
    trials.tune(replace(first(recipe), epochs=1), None, 2)
    assert {folder.name for folder in tmp_path.iterdir()} == {f"0.001-1-10-0.045-{seed}", "0.001-1-10-0.045-0"}
