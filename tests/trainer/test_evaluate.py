import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.encoders.languages import worse_languages
from app.errors import BadDataset, Conflict
from app.registry import EncoderRecord
from tests.registry.jobs import new_encoder
from trainer.evaluate import EvaluationSet, Measured, compare, halve, means, measure
from trainer.metrics import Scores
from trainer.statistics import compare_paired, lower_bound
from trainer.training_set import Judged, Matrix, TrainingSet

MATRIX = Matrix(ids=("p0",), vectors=np.ones((1, 1), np.float32), groups=np.zeros(1, np.int32), meta={})


def over(langs: Sequence[str], passages: Sequence[int]) -> EvaluationSet:
    count = len(langs)
    queries = Judged(
        ids=tuple(f"q{n}" for n in range(count)),
        texts=("",) * count,
        langs=tuple(langs),
        relevant=tuple(np.array([row]) for row in passages),
        missing=(),
    )
    return EvaluationSet(matrix=MATRIX, queries=queries)


def measured(*mrr: float, vector: Sequence[float] = (1, 0), recall: float = 0.5) -> Measured:
    values = np.array(mrr)
    others = dict.fromkeys(("ndcg", "recall_10", "recall_100", "triplets"), np.full(len(mrr), recall))
    return Measured(
        vectors=np.tile(np.array(vector, dtype=np.float32), (len(mrr), 1)),
        scores=Scores(mrr=values, **others),
    )


def test_the_report_has_dev_apart_and_guards_with_their_change_interval_and_drift() -> None:
    sets = {"dev": over(["", ""], [0, 1]), "de": over(["de"] * 4, [0, 0, 1, 2]), "vi": over(["vi"] * 2, [0, 1])}
    before = {"dev": measured(0.5, 0.7), "de": measured(0.5, 0.5, 0.5, 0.5), "vi": measured(0.2, 0.2)}
    after = {
        "dev": measured(1.0, 0.7),
        "de": measured(0.5, 0.4, 0.5, 0.4, vector=(0.6, 0.8), recall=0.25),
        "vi": measured(0.2, 0.3),
    }
    report = compare(before, after, sets, alpha=0.1)
    assert (report["dev"]["before"], report["dev"]["after"], report["dev"]["gain"]) == pytest.approx((0.6, 0.85, 0.25))
    german = report["guards"]["de"]
    assert (german["before"], german["after"], german["change"]) == pytest.approx((0.5, 0.45, -0.05))
    assert german["relative"] == pytest.approx(-0.1)
    assert report["guards"]["vi"]["relative"] == pytest.approx(0.25)
    assert report["guards_relative"] == pytest.approx(0.075)
    pair = np.full(4, 0.5), np.array([0.5, 0.4, 0.5, 0.4])
    clusters = np.array([0, 0, 1, 2])
    found = compare_paired(*pair, clusters)
    assert (german["low"], german["high"], german["p"]) == (found.low, found.high, found.p)
    assert german["at_least"] == lower_bound(*pair, clusters, alpha=0.1)
    smaller, larger = sorted(guard["p"] for guard in report["guards"].values())
    assert sorted(guard["p_holm"] for guard in report["guards"].values()) == [
        min(1, 2 * smaller),
        min(1, max(2 * smaller, larger)),
    ]
    assert german["drift"] == pytest.approx(0.4)
    assert report["guards"]["vi"]["drift"] == 0
    assert german["queries"] == 4
    assert german["metrics"]["recall_10"] == {"before": 0.5, "after": 0.25}


def test_figures_are_also_by_language_where_the_queries_say_theirs() -> None:
    sets = {"both": over(["de", "en", "de", ""], [0, 1, 2, 3])}
    report = compare({"both": measured(0.1, 0.2, 0.3, 0.4)}, {"both": measured(0.3, 0.2, 0.5, 0.4)}, sets)
    languages = report["guards"]["both"]["languages"]
    assert {name: each["queries"] for name, each in languages.items()} == {"de": 2, "en": 1}
    assert languages["de"]["mrr"] == pytest.approx({"before": 0.2, "after": 0.4})
    assert languages["en"]["mrr"] == pytest.approx({"before": 0.2, "after": 0.2})


def record(metrics: dict[str, object]) -> EncoderRecord:
    return EncoderRecord(**asdict(new_encoder()) | {"id": 1, "version": 1, "created_at": 0.0, "metrics": metrics})


def test_a_card_tells_in_which_languages_the_encoder_is_worse() -> None:
    sets = {
        "dev": over(["de-AT", "de-AT", "en", ""], [0, 1, 2, 3]),
        "both": over(["de", "en", "zh", "?"], [0, 1, 2, 3]),
    }
    report = compare(
        {"dev": measured(0.5, 0.5, 0.5, 0.5), "both": measured(0.5, 0.5, 0.5, 0.5)},
        {"dev": measured(0.4, 0.5, 0.2, 0.5), "both": measured(0.5, 0.9, 0.5, 0.1)},
        sets,
    )
    (german,) = (worse := worse_languages(record(json.loads(json.dumps(report))))).values()
    assert set(worse) == {"de"}  # every question counts once: English gained 0.1, Chinese nothing
    assert (german.queries, german.mrr.before, german.mrr.after) == pytest.approx((3, 0.5, 1.4 / 3))


@pytest.mark.parametrize("metrics", [{}, {"dev": {"languages": {"de": 1}}}, {"guards": []}, {"dev": {"gain": 0.1}}])
def test_a_card_without_languages_tells_so(metrics: dict[str, object]) -> None:
    with pytest.raises(Conflict, match="The card of bees@1 has no figures by language"):
        worse_languages(record(metrics))


def test_without_guards_and_dev_the_report_says_so() -> None:
    assert compare({}, {}, {}) == {"guards": {}, "guards_relative": None}


def test_a_guard_on_which_nothing_was_found_does_not_divide_by_zero() -> None:
    report = compare({"vi": measured(0.0)}, {"vi": measured(0.5)}, {"vi": over([""], [0])})
    assert report["guards"]["vi"]["relative"] == 0


def test_measuring_uses_the_query_prompt_and_returns_one_value_per_query(
    tiny: SentenceTransformer, training: TrainingSet
) -> None:
    sets = {"dev": EvaluationSet(matrix=training.matrix, queries=training.queries)}
    plain = measure(tiny, sets)["dev"]
    prompted = measure(tiny, sets, query_prompt="das ist der fire engine: ")["dev"]
    assert plain.scores.mrr.shape == (len(training.queries.texts),)
    assert plain.vectors.shape == (len(training.queries.texts), 32)
    assert 0 < plain.scores.mrr.mean() < 1
    assert means({"dev": plain}) == {"dev": plain.scores.mrr.mean()}
    assert not np.array_equal(plain.scores.mrr, prompted.scores.mrr)


def test_every_set_is_halved_over_its_own_matrix(training: TrainingSet) -> None:
    whole = EvaluationSet(matrix=training.matrix, queries=training.queries)
    choose, prove = halve({"dev": whole, "de": whole})
    assert choose["dev"].matrix is prove["dev"].matrix is training.matrix
    both = choose["de"].queries.ids + prove["de"].queries.ids
    assert sorted(both) == sorted(training.queries.ids)
    assert choose["dev"].queries.ids == choose["de"].queries.ids
    assert halve({"dev": whole}, seed=1)[0]["dev"].queries.ids != choose["dev"].queries.ids


def test_a_set_that_has_no_halves_is_refused_by_name() -> None:
    with pytest.raises(BadDataset, match="The set 'one' cannot be cut"):
        halve({"one": over(["en", "en"], [0, 0])})
