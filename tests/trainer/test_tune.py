from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from app.errors import InvalidField, TuningFailed
from app.recipe import Recipe
from tests.tiny import FAMILIES, Family, build_tiny
from trainer.evaluate import EvaluationSet, compare, measure
from trainer.matrix import corpus_matrix
from trainer.stopping import Stopped
from trainer.training_set import TrainingSet, read_training_set
from trainer.tune import tune

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


def test_the_papers_rate_moves_weights_in_fp32(tiny: SentenceTransformer, training: TrainingSet) -> None:
    recipe = QUICK.model_copy(update={"learning_rate": 2e-8, "loss": "triplet", "epochs": 1})
    assert tune(tiny, training, recipe).movement.share > 0.5


def test_a_half_precision_parent_is_tuned_in_fp32(tiny: SentenceTransformer, training: TrainingSet) -> None:
    result = tune(tiny.half(), training, QUICK.model_copy(update={"epochs": 1}))
    assert {value.dtype for value in result.tuned.values()} == {torch.float32}


def test_without_mined_negatives_the_batch_is_enough(tiny: SentenceTransformer, training: TrainingSet) -> None:
    result = tune(tiny, training, QUICK.model_copy(update={"mined_negatives": 0, "epochs": 6}))
    assert result.losses[-1] < result.losses[0]


def test_the_query_prompt_is_part_of_what_is_tuned(tiny_folder: Path, training: TrainingSet) -> None:
    losses = [
        tune(SentenceTransformer(str(tiny_folder), device="cpu"), training, QUICK, query_prompt=prompt).losses
        for prompt in ("", "das ist: ")
    ]
    assert abs(losses[0][0] - losses[1][0]) > 1e-4
