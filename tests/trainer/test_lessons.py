"""What a step compares its queries with: against sums done by hand."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.recipe import FixedRecipe
from trainer.embed import embed
from trainer.lessons import Lessons, view_of_parent
from trainer.stopping import never
from trainer.training_set import TrainingSet

TEMPERATURE = 0.1


def loss_of_first_step(model: SentenceTransformer, training: TrainingSet, **fields: object) -> float:
    recipe = FixedRecipe(temperature=TEMPERATURE, batch_size=100, **fields)  # one batch: every pair
    parent = view_of_parent(model, training, recipe, "", never)
    model.eval()
    return Lessons(model, training, recipe, parent, "").backward(0)


def test_every_passage_of_the_index_is_a_negative_once(tiny: SentenceTransformer, training: TrainingSet) -> None:
    scores = embed(tiny, training.queries.texts) @ training.matrix.vectors.T / TEMPERATURE  # (queries, passages)
    expected = []
    for row, relevant in zip(scores, training.queries.relevant, strict=True):
        for own in relevant:
            others = np.setdiff1d(np.arange(len(row)), relevant)  # another positive is no negative
            expected.append(np.log(np.exp(row[others]).sum() + np.exp(row[own])) - row[own])
    # The queries' own passages are columns already, so those of the index add the others and nothing twice.
    for drawn in (len(training.matrix.ids), 10_000):
        assert loss_of_first_step(tiny, training, corpus_negatives=drawn) == pytest.approx(np.mean(expected), abs=1e-5)


def test_some_of_the_index_are_drawn_anew_for_each_step_and_the_same_for_a_seed(
    tiny_folder: Path, training: TrainingSet
) -> None:
    def rows(step: int, seed: int) -> list[int]:
        model = SentenceTransformer(str(tiny_folder), device="cpu")
        recipe = FixedRecipe(corpus_negatives=5, seed=seed)
        lessons = Lessons(model, training, recipe, view_of_parent(model, training, recipe, "", never), "")
        return lessons.of_the_index(step).tolist()

    assert len(set(rows(0, seed=1))) == 5
    assert rows(0, seed=1) == rows(0, seed=1)
    assert rows(0, seed=1) != rows(1, seed=1)
    assert rows(0, seed=1) != rows(0, seed=2)


def test_without_them_and_with_triplets_the_batch_is_all_there_is(
    tiny: SentenceTransformer, training: TrainingSet
) -> None:
    batch_only = training.sample(20, seed=0)  # of 24 passages some are nobody's
    less = loss_of_first_step(tiny, batch_only, corpus_negatives=0)
    assert less < loss_of_first_step(tiny, batch_only, corpus_negatives=24)
    triplets = (loss_of_first_step(tiny, batch_only, loss="triplet", corpus_negatives=n) for n in (0, 24))
    assert next(triplets) == next(triplets)
