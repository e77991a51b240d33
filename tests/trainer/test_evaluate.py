import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from trainer.evaluate import EvaluationSet, compare, measure
from trainer.metrics import Scores
from trainer.training_set import TrainingSet


def scores(*mrr: float) -> Scores:
    values = np.array(mrr)
    return Scores(mrr=values, ndcg=values, recall=values)


def test_the_report_has_dev_apart_and_guards_with_their_relative_change() -> None:
    before = {"dev": scores(0.5, 0.7), "de": scores(0.5, 0.5), "vi": scores(0.2, 0.2)}
    after = {"dev": scores(1.0, 0.7), "de": scores(0.5, 0.4), "vi": scores(0.2, 0.3)}
    report = compare(before, after)
    assert report["dev"] == pytest.approx({"before": 0.6, "after": 0.85})
    assert report["guards"]["de"] == pytest.approx({"before": 0.5, "after": 0.45, "relative": -0.1})
    assert report["guards"]["vi"]["relative"] == pytest.approx(0.25)
    assert report["guards_relative"] == pytest.approx(0.075)


def test_without_guards_and_dev_the_report_says_so() -> None:
    assert compare({}, {}) == {"guards": {}, "guards_relative": None}


def test_a_guard_on_which_nothing_was_found_does_not_divide_by_zero() -> None:
    report = compare({"vi": scores(0.0)}, {"vi": scores(0.5)})
    assert report["guards"]["vi"]["relative"] == 0


def test_measuring_uses_the_query_prompt_and_returns_one_value_per_query(
    tiny: SentenceTransformer, training: TrainingSet
) -> None:
    sets = {"dev": EvaluationSet(matrix=training.matrix, queries=training.queries)}
    plain = measure(tiny, sets)["dev"].mrr
    prompted = measure(tiny, sets, query_prompt="das ist der fire engine: ")["dev"].mrr
    assert plain.shape == (len(training.queries.texts),)
    assert 0 < plain.mean() < 1
    assert not np.array_equal(plain, prompted)
