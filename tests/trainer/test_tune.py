from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from app.errors import InvalidField, TuningFailed
from app.recipe import Recipe
from tests.tiny import FAMILIES, Family, build_tiny
from trainer.embed import embed
from trainer.evaluate import EvaluationSet, compare, measure
from trainer.lessons import Lessons, view_of_parent
from trainer.matrix import corpus_matrix
from trainer.parameters import choose_parameters
from trainer.soften import load_softened
from trainer.stopping import Stopped, never
from trainer.training_set import TrainingSet, read_training_set
from trainer.tune import TuneResult, tune
from trainer.watch import Look, Watch

QUICK = Recipe(epochs=2, batch_size=16, learning_rate=1e-3)


def state(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("loss", ["infonce", "triplet"])
def test_tuning_raises_the_rank_of_what_it_is_told(tiny: SentenceTransformer, training: TrainingSet, loss: str) -> None:
    sets = {"dev": EvaluationSet(matrix=training.matrix, queries=training.queries)}
    before = measure(tiny, sets)
    recipe = QUICK.model_copy(update={"loss": loss, "epochs": 10})
    result = tune(tiny, training, recipe)
    dev = compare(before, measure(tiny, sets), sets)["dev"]
    assert dev["after"] > dev["before"] + 0.1
    assert result.losses[-1] < result.losses[0]
    assert len(result.losses) == 10 * 5
    assert result.pairs == 72


@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_embedding_block_stays_and_the_layers_move(
    family: Family, tmp_path: Path, world: Path
) -> None:
    model = SentenceTransformer(str(build_tiny(tmp_path / family, family=family)), device="cpu")
    before = state(model)
    corpus_matrix(model, world / "dataset" / "corpus.jsonl", tmp_path / "m", encoder_digest=family)
    (folder,) = (tmp_path / "m").iterdir()
    tune(model, read_training_set(folder, world / "dataset"), QUICK.model_copy(update={"epochs": 1}))
    moved = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert any(".0." in name for name in moved)
    assert any(".1." in name for name in moved)
    assert len([name for name in before if "embeddings." in name]) >= 2
    assert not [name for name in moved if "embeddings." in name]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_folder: Path, training: TrainingSet) -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        model = SentenceTransformer(str(tiny_folder), device="cpu")
        return tune(model, training, QUICK.model_copy(update={"seed": seed})).tuned

    first, second, other = run(1), run(1), run(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_result_holds_both_ends_of_the_step(tiny: SentenceTransformer, training: TrainingSet) -> None:
    before = state(tiny)
    result = tune(tiny, training, QUICK)
    after = state(tiny)
    assert result.tuned.keys() == result.start.keys()
    assert all(torch.equal(result.start[name], before[name]) for name in result.start)
    assert all(torch.equal(result.tuned[name], after[name]) for name in result.tuned)
    assert result.movement.share > 0.9
    assert result.movement.weights == sum(value.numel() for value in result.tuned.values())
    assert 0 < result.movement.mean_change < result.movement.max_change


def test_frozen_patterns_stay_and_a_useless_pattern_is_named(tiny: SentenceTransformer, training: TrainingSet) -> None:
    result = tune(tiny, training, QUICK.model_copy(update={"freeze": ("*.output.dense.weight",)}))
    assert not [name for name in result.tuned if name.endswith(".output.dense.weight")]
    with pytest.raises(InvalidField, match=r"'\*\.no\.such' matches no parameter"):
        tune(tiny, training, QUICK.model_copy(update={"freeze": ("*.no.such",)}))
    with pytest.raises(InvalidField, match="leave no parameter"):
        tune(tiny, training, QUICK.model_copy(update={"freeze": ("*",)}))


def test_every_step_is_reported(tiny: SentenceTransformer, training: TrainingSet) -> None:
    heard: list[tuple[int, int, float]] = []
    result = tune(tiny, training, QUICK, on_step=lambda *step: heard.append(step))
    assert [step for step, _, _ in heard] == list(range(1, 11))
    assert {steps for _, steps, _ in heard} == {10}
    assert tuple(loss for _, _, loss in heard) == result.losses


def test_a_stop_ends_the_tuning_at_the_next_step(tiny: SentenceTransformer, training: TrainingSet) -> None:
    heard: list[int] = []
    with pytest.raises(Stopped):
        tune(
            tiny,
            training,
            QUICK,
            on_step=lambda step, *_: heard.append(step),
            should_stop=lambda: len(heard) == 3,
        )
    assert heard == [1, 2, 3]


def test_a_loss_that_is_not_a_number_is_a_failure_with_a_remedy(
    tiny: SentenceTransformer, training: TrainingSet
) -> None:
    with torch.no_grad():
        next(p for name, p in tiny.named_parameters() if "intermediate" in name).fill_(float("nan"))
    with pytest.raises(TuningFailed, match=r"nan at step 1.*learning rate"):
        tune(tiny, training, QUICK)


def test_a_rate_lost_in_rounding_is_refused(tiny: SentenceTransformer, training: TrainingSet) -> None:
    with pytest.raises(InvalidField, match=r"recipe.learning_rate: at 1e-13 only"):
        tune(tiny, training, QUICK.model_copy(update={"learning_rate": 1e-13}))


def test_passages_out_of_reach_teach_nothing(tiny: SentenceTransformer, training: TrainingSet) -> None:
    scores = embed(tiny, training.queries.texts) @ training.matrix.vectors.T
    relevant = training.queries.relevant
    out = [i for i, rows in enumerate(relevant) if scores[i, rows].max() < np.delete(scores[i], rows).max() - 0.01]
    assert len(out) > 10
    far = replace(training, queries=training.queries.take(out))
    recipe = QUICK.model_copy(update={"reach": 1, "epochs": 1, "learning_rate": 1e-6})
    with pytest.raises(InvalidField, match=r"among the 1 best, so nothing was learnt. Choose a larger number, or 0"):
        tune(tiny, far, recipe)
    assert tune(tiny, far, recipe.model_copy(update={"reach": 0})).movement.share > 0.5
    assert tune(tiny, training, recipe).movement.share > 0.5  # where some are within


def test_the_papers_rate_moves_weights_in_fp32(tiny: SentenceTransformer, training: TrainingSet) -> None:
    recipe = QUICK.model_copy(update={"learning_rate": 2e-8, "loss": "triplet", "epochs": 1})
    assert tune(tiny, training, recipe).movement.share > 0.5


def test_a_half_precision_parent_is_tuned_in_fp32(tiny: SentenceTransformer, training: TrainingSet) -> None:
    result = tune(tiny.half(), training, QUICK.model_copy(update={"epochs": 1}))
    assert {value.dtype for value in result.tuned.values()} == {torch.float32}


def test_without_mined_negatives_the_batch_is_enough(tiny: SentenceTransformer, training: TrainingSet) -> None:
    result = tune(tiny, training, QUICK.model_copy(update={"reach": 0, "mined_negatives": 0, "epochs": 6}))
    assert result.losses[-1] < result.losses[0]


def test_the_query_prompt_is_part_of_what_is_tuned(tiny_folder: Path, training: TrainingSet) -> None:
    losses = [
        tune(SentenceTransformer(str(tiny_folder), device="cpu"), training, QUICK, query_prompt=prompt).losses
        for prompt in ("", "das ist: ")
    ]
    assert abs(losses[0][0] - losses[1][0]) > 1e-4


def fresh(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def changed(**fields: object) -> Recipe:
    return Recipe.model_validate(QUICK.model_dump() | fields)


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("margin", [None, -0.1, 0.0, 0.05])
def test_the_batchs_false_negatives_are_masked_by_the_parents_scores(
    tiny: SentenceTransformer, training: TrainingSet, margin: float | None
) -> None:
    recipe = changed(batch_size=72, epochs=1, mined_negatives=0, false_negative_margin=margin)
    # All pairs in one batch: each query sees its own passage and every other text once. Computed plainly:
    scores = embed(tiny, training.queries.texts) @ training.matrix.vectors.T  # (queries, passages)
    losses, masked = [], 0
    for row, (own,) in zip(scores, training.queries.relevant, strict=True):
        seen = np.ones(len(row), dtype=bool) if margin is None else row <= row[own] - np.float32(margin)
        seen[own] = True
        masked += int((~seen).sum())
        losses.append(np.log(np.exp(row[seen] / recipe.temperature).sum()) - row[own] / recipe.temperature)
    assert tune(tiny, training, recipe).losses[0] == pytest.approx(float(np.mean(losses)), rel=1e-4)
    assert (masked > 100) is (margin is not None)


@pytest.mark.parametrize("loss", ["infonce", "triplet"])
def test_parts_of_a_batch_add_up_to_its_gradient(tiny_folder: Path, training: TrainingSet, loss: str) -> None:
    def gradients(accumulate: int) -> tuple[float, dict[str, torch.Tensor], int]:
        model = fresh(tiny_folder)
        recipe = changed(loss=loss, accumulate=accumulate, drift_penalty=0.5, margin=0.5)
        parameters = choose_parameters(model, ())
        lessons = Lessons(model, training, recipe, view_of_parent(model, training, recipe, "", never), "")
        sizes: list[int] = []
        model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0]["input_ids"])))
        value = lessons.backward(1)
        return value, {n: p.grad for n, p in parameters.items() if p.grad is not None}, max(sizes)

    whole, in_parts = gradients(1), gradients(4)
    assert in_parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert (whole[2], in_parts[2]) == (15, 4)  # 72 pairs in five batches
    for name, gradient in whole[1].items():
        assert torch.allclose(in_parts[1][name], gradient, rtol=1e-3, atol=1e-6), name


def test_more_parts_than_pairs_are_as_many_as_there_are_pairs(tiny: SentenceTransformer, training: TrainingSet) -> None:
    result = tune(tiny, training, changed(reach=0, accumulate=100, epochs=6))
    assert result.losses[-1] < result.losses[0]


def test_a_drift_penalty_holds_the_queries_where_the_parent_had_them(tiny_folder: Path, training: TrainingSet) -> None:
    def drift_and_calls(weight: float) -> tuple[float, int]:
        model = fresh(tiny_folder)
        before = embed(model, training.queries.texts)
        calls: list[int] = []
        hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
        tune(model, training, changed(drift_penalty=weight, mined_negatives=2, epochs=6))
        hook.remove()
        return float(1 - (before * embed(model, training.queries.texts)).sum(axis=1).mean()), len(calls)

    (free, calls), (held, calls_held) = drift_and_calls(0), drift_and_calls(20)
    assert held < free / 3
    assert calls_held == calls  # the parent's vectors are those of the mining, not computed again


def test_the_mean_of_the_last_steps_is_the_result(tiny_folder: Path, training: TrainingSet) -> None:
    model, states = fresh(tiny_folder), []
    last = tune(model, training, QUICK, on_step=lambda *_: states.append(state(model)))
    averaging = fresh(tiny_folder)
    mean = tune(averaging, training, changed(average=0.4))
    assert mean.losses == last.losses
    for name, value in mean.tuned.items():
        wanted = torch.stack([each[name] for each in states[6:]]).mean(dim=0)
        assert torch.allclose(value, wanted, rtol=1e-5, atol=1e-7)
        assert not torch.equal(value, last.tuned[name])
    assert equal({name: state(averaging)[name] for name in mean.tuned}, mean.tuned)


def test_layer_decay_moves_the_lower_layer_less(tiny_folder: Path, training: TrainingSet) -> None:
    def steps(decay: float) -> dict[str, float]:
        result = tune(fresh(tiny_folder), training, changed(layer_decay=decay, epochs=1))
        return {name: float((result.tuned[name] - result.start[name]).abs().max()) for name in result.tuned}

    plain, decayed = steps(1.0), steps(0.1)
    for name in plain:
        if name.endswith("attention.self.key.bias"):
            continue  # it moves no score: its gradient is what rounding leaves, and Adam makes steps of that
        ratio = decayed[name] / plain[name]
        assert ratio == pytest.approx(0.1 if ".layer.0." in name else 1.0, rel=0.5), name


def rude_watch(model: SentenceTransformer, seen: list[dict[str, torch.Tensor]]) -> Watch:
    """Leaves everything behind that a watch may leave behind: other weights, another mode, another random state."""

    def watch(step: int, start: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor]) -> Look:
        seen.append({name: state(model)[name] for name in tuned})
        assert equal(seen[-1], tuned)
        load_softened(model, start, tuned, 0.3)
        embed(model, ["what is a heart"])
        model.train()
        torch.manual_seed(step)
        np.random.seed(step)
        return Look(step=step, dev=0.0, drift=0.0)

    return watch


@pytest.mark.parametrize("fields", [{}, {"average": 0.5}, {"loss": "triplet", "accumulate": 2}])
def test_looking_changes_nothing_of_the_weights_course(
    tiny_folder: Path, training: TrainingSet, fields: dict[str, object]
) -> None:
    unwatched = tune(fresh(tiny_folder), training, changed(**fields))
    model, seen = fresh(tiny_folder), []
    watched = tune(model, training, changed(**fields, eval_every=3), watch=rude_watch(model, seen))
    assert [look.step for look in watched.looks] == [3, 6, 9]
    assert watched.losses == unwatched.losses
    assert equal(watched.tuned, unwatched.tuned)
    assert equal({name: state(model)[name] for name in watched.tuned}, watched.tuned)
    assert watched.ended is None


def test_a_watch_sees_the_mean_once_it_has_begun(tiny_folder: Path, training: TrainingSet) -> None:
    model, seen = fresh(tiny_folder), []
    result = tune(model, training, changed(average=0.5, eval_every=2), watch=rude_watch(model, seen))
    assert len(seen) == 5
    assert equal(seen[-1], result.tuned)
    plain, states = fresh(tiny_folder), []
    tune(plain, training, QUICK, on_step=lambda *_: states.append(state(plain)))
    assert equal(seen[1], {name: states[3][name] for name in seen[1]})
    assert not equal(seen[3], {name: states[7][name] for name in seen[3]})


def test_without_looks_nothing_is_watched(tiny: SentenceTransformer, training: TrainingSet) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    assert tune(tiny, training, changed(eval_every=0), watch=rude_watch(tiny, seen)).looks == ()
    assert seen == []


def looked_at(
    folder: Path, training: TrainingSet, figures: list[tuple[float, float]], **fields: object
) -> tuple[TuneResult, list[dict[str, torch.Tensor]]]:
    """A tuning whose looks find these figures of dev and drift, and the weights that they saw."""
    seen: list[dict[str, torch.Tensor]] = []

    def watch(step: int, _: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor]) -> Look:
        seen.append(dict(tuned))
        dev, drift = figures[len(seen) - 1]
        return Look(step=step, dev=dev, drift=drift)

    return tune(fresh(folder), training, changed(**fields), watch=watch), seen


def test_patience_ends_the_tuning_with_the_best_weights(tiny_folder: Path, training: TrainingSet) -> None:
    figures = [(0.5, 0.0), (0.7, 0.0), (0.6, 0.0), (0.6, 0.0), (0.9, 0.0)]
    result, seen = looked_at(tiny_folder, training, figures, eval_every=2, patience=2)
    assert len(result.losses) == 8
    assert result.ended
    assert "best after step 4 (0.7000)" in result.ended
    assert equal(result.tuned, seen[1])
    assert not equal(seen[1], seen[3])


def test_the_last_weights_are_looked_at_where_the_best_are_the_result(tiny_folder: Path, training: TrainingSet) -> None:
    result, seen = looked_at(tiny_folder, training, [(0.5, 0), (0.4, 0), (0.6, 0)], eval_every=4, patience=2)
    assert [look.step for look in result.looks] == [4, 8, 10]
    assert result.ended is None
    assert equal(result.tuned, seen[2])
    better, seen = looked_at(tiny_folder, training, [(0.5, 0), (0.7, 0), (0.6, 0)], eval_every=4, patience=2)
    assert equal(better.tuned, seen[1])


def test_the_drift_budget_ends_the_tuning_with_the_best_weights_within(
    tiny_folder: Path, training: TrainingSet
) -> None:
    result, seen = looked_at(tiny_folder, training, [(0.5, 0.05), (0.8, 0.2)], eval_every=2, drift_budget=0.1)
    assert len(result.losses) == 4
    assert result.ended == "After step 4 the drift was 0.2000, above the budget of 0.1."
    assert equal(result.tuned, seen[0])


def test_a_budget_that_the_first_look_exceeds_is_a_failure_with_a_remedy(
    tiny_folder: Path, training: TrainingSet
) -> None:
    with pytest.raises(TuningFailed, match=r"After step 2 the drift was 0.2000.*smaller learning_rate"):
        looked_at(tiny_folder, training, [(0.5, 0.2)], eval_every=2, drift_budget=0.1)


def test_a_stop_during_a_look_ends_the_tuning(tiny: SentenceTransformer, training: TrainingSet) -> None:
    def watch(*_: object) -> Look:
        raise Stopped

    with pytest.raises(Stopped):
        tune(tiny, training, changed(eval_every=2), watch=watch)


def test_a_tuning_after_one_that_failed_starts_clean(tiny_folder: Path, training: TrainingSet) -> None:
    model = fresh(tiny_folder)
    before = state(model)
    model.get_parameter("0.model.encoder.layer.1.output.dense.bias").data.fill_(float("nan"))
    with pytest.raises(TuningFailed, match="nan"):
        tune(model, training, QUICK)
    model.load_state_dict(before, strict=False)
    assert equal(tune(model, training, QUICK).tuned, tune(fresh(tiny_folder), training, QUICK).tuned)
