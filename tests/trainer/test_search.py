"""The search for what a recipe leaves to "auto": what it tries, what it keeps, and that it can be broken off."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.errors import InvalidField, TuningFailed
from app.recipe import AUTO, Gate, Recipe
from trainer.evaluate import DEV, EvaluationSet, compare, halve, measure
from trainer.search import (
    COMPARED_SOFTENINGS,
    GENTLER,
    OPEN,
    PROBE_PAIRS,
    PROBE_SOFTENINGS,
    RATES,
    SOFTENINGS,
    STRONGER,
    Bench,
    Course,
    Found,
    Point,
    Trial,
    best_point,
    first,
    is_better,
    merit,
    search,
)
from trainer.stopping import Stopped
from trainer.training_set import TrainingSet
from trainer.trials import QUICK_QUERIES, Trials
from trainer.tune import TuneResult

GATE = Gate(max_guard_loss=1)
Asked = tuple[Course, int | None, int]
THREE = Course(learning_rate=1e-3, epochs=3, reach=10, temperature=0.045)


def point(
    soften: float, dev: float, *guards: float, error: float = 0.01, drift: float = 0.001, shown: float | None = None
) -> Point:
    """`shown`: what every guard's change is at least."""
    changes = {f"guard {i}": change for i, change in enumerate(guards)}
    at_least = {} if shown is None else {DEV: dev - 2 * error, **dict.fromkeys(changes, shown)}
    return Point(
        soften=soften,
        dev=dev,
        dev_error=error,
        guards=changes,
        drifts=dict.fromkeys(changes, drift),
        at_least=at_least,
    )


@pytest.mark.parametrize(
    ("points", "best"),
    [
        # the domain's gain and the guards' mean change weigh the same
        ([point(0.3, 0.10, 0.00, 0.00), point(0.6, 0.13, 0.0, 0.0)], 0.6),
        ([point(0.3, 0.10, 0.04, 0.04), point(0.6, 0.13, 0.0, 0.0)], 0.3),
        # a guard that lost more than half of what is allowed rules a point out, whatever is gained
        ([point(0.3, 0.10, 0.0, 0.0), point(0.6, 0.30, 0.02, -0.011)], 0.3),
        ([point(0.3, 0.10, 0.0, 0.0), point(0.6, 0.30, 0.02, -0.009)], 0.6),
        # where all are ruled out, the least harm
        ([point(0.3, 0.10, -0.03), point(0.6, 0.30, -0.05)], 0.3),
        # what the gate could not be shown gives way to what it could, however much it gained, and only to that
        ([point(0.3, 0.10, 0.0, shown=-0.019), point(0.6, 0.30, 0.0, shown=-0.021)], 0.3),
        ([point(0.3, 0.10, 0.0, shown=-0.021), point(0.6, 0.30, 0.0, shown=-0.022)], 0.6),
        ([point(0.3, 0.01, 0.0, shown=0.0), point(0.6, 0.30, 0.0, shown=-0.021)], 0.6),
        # and what could just be shown to what could with a quarter of the loss to spare
        ([point(0.3, 0.10, 0.0, shown=-0.014), point(0.6, 0.30, 0.0, shown=-0.016)], 0.3),
        ([point(0.3, 0.10, 0.0, shown=-0.016), point(0.6, 0.30, 0.0, shown=-0.019)], 0.6),
        # of equals the gentler, and equal are those within half a standard error that could be shown alike
        ([point(0.6, 0.10, 0.0), point(0.3, 0.10, 0.0)], 0.3),
        ([point(a, dev, 0.0, shown=0.0) for a, dev in ((0.5, 0.096), (0.6, 0.10), (0.7, 0.098))], 0.5),
        ([point(a, dev, 0.0, shown=0.0) for a, dev in ((0.5, 0.094), (0.6, 0.10), (0.7, 0.098))], 0.6),
        ([point(0.5, 0.096, 0.0, shown=-0.016), point(0.6, 0.10, 0.0, shown=-0.014)], 0.6),
        # but none whose own gain would hardly be shown, and none where nothing would pass
        ([point(a, dev, 0.0, shown=0.0, error=0.0125) for a, dev in ((0.5, 0.0252), (0.6, 0.0255))], 0.6),
        # and few questions, whose standard error is large, do not give the gain away
        ([point(a, dev, 0.0, shown=0.0, error=0.05) for a, dev in ((0.5, 0.194), (0.6, 0.2), (0.7, 0.198))], 0.5),
        ([point(a, dev, 0.0, shown=0.0, error=0.05) for a, dev in ((0.5, 0.185), (0.6, 0.2), (0.7, 0.198))], 0.6),
        ([point(0.5, 0.096, 0.0), point(0.6, 0.10, 0.0)], 0.6),
        ([point(0.5, 0.20, -0.012), point(0.6, 0.20, -0.011)], 0.6),
        # without guards: the gentlest within a standard error of the best
        ([point(0.2, 0.085), point(0.4, 0.092), point(0.8, 0.10)], 0.4),
    ],
)
def test_the_best_point(points: Sequence[Point], best: float) -> None:
    assert best_point(points, Gate(max_guard_loss=0.02, min_gain=0)).soften == best


def test_tunings_are_compared_between_their_softenings_too() -> None:
    """At 0.75 the first would gain more than the other anywhere, and lose no more than is to spare."""
    gate = Gate(max_guard_loss=0.02)
    steep = trial(point(1.0, 0.20, 0.0, shown=-0.024), point(0.5, 0.10, 0.0, shown=-0.004))
    flat = trial(point(1.0, 0.14, 0.0, shown=-0.014), point(0.5, 0.11, 0.0, shown=-0.004))
    assert max(each.merit(gate) for each in flat.points) > max(each.merit(gate) for each in steep.points)
    assert merit(steep, gate) > merit(flat, gate)
    assert merit(steep, gate)[1] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("rate", "dev", "guards", "better"),
    [
        (5e-5, 0.096, [0.0], True),  # gentler, and behind by no more than chance alone could do
        (5e-5, 0.094, [0.0], False),
        (2e-4, 0.101, [0.0], True),
        (2e-4, 0.100, [0.0], False),
        (1e-4, 0.101, [0.0], True),
        # where only the domain is measured, chance is all of a standard error, either way
        (5e-5, 0.091, [], True),
        (5e-5, 0.089, [], False),
        (2e-4, 0.109, [], False),
        (2e-4, 0.111, [], True),
    ],
)
def test_of_two_tunings_the_better(rate: float, dev: float, guards: Sequence[float], better: bool) -> None:
    best, other = trial(point(1.0, 0.10, *guards)), trial(point(1.0, dev, *guards), rate=rate)
    assert is_better(other, best, Gate()) is better


def test_where_both_lost_too_much_the_gentler_rate_must_have_lost_less() -> None:
    best, other = trial(point(1.0, 0.10, -0.0111)), trial(point(1.0, 0.10, -0.0149), rate=5e-5)
    assert merit(best, gate := Gate(max_guard_loss=0.02))[0] == 0
    assert not is_better(other, best, gate)


def trial(*points: Point, rate: float = 1e-4) -> Trial:
    return Trial(learning_rate=rate, epochs=1, reach=10, temperature=0.045, stage="in full", pairs=100, points=points)


class World:
    """Real trials over the tiny world, cut into halves, that remember what was asked of them."""

    def __init__(self, model: SentenceTransformer, training: TrainingSet, recipe: Recipe, folder: Path) -> None:
        whole = {name: EvaluationSet(matrix=training.matrix, queries=training.queries) for name in (DEV, "guard")}
        sets, _ = halve(whole)
        self.asked: list[Asked] = []
        self.measured: list[tuple[float, bool]] = []
        self.took_s: list[float] = []  # of what was asked
        self.fail_at: Asked | None = None
        self.fails = 1  # the first time that it is asked for, or the second
        self.sets, self.before = sets, measure(model, sets)
        self.trials = Trials(model, training, recipe, sets, self.before, alpha=GATE.alpha, folder=folder)
        self.recipe, self.kept = recipe, folder / "trials.json"

    def search(self) -> Found:
        return search(
            self.recipe, Bench(tune=self.tune, measure=self.measure, drop=self.trials.drop), gate=GATE, kept=self.kept
        )

    def tune(self, course: Course, pairs: int | None, runs: int) -> TuneResult:
        self.asked.append((course, pairs, runs))
        if self.asked[-1] == self.fail_at and self.asked.count(self.fail_at) == self.fails:
            raise Stopped
        tuned = self.trials.tune(course, pairs, runs)
        self.took_s.append(tuned.seconds)
        return tuned

    def measure(self, tuned: TuneResult, soften: float, quick: bool) -> Point:
        self.measured.append((soften, quick))
        return self.trials.measure(tuned, soften, quick)


ALL_AUTO = Recipe(**AUTO | {"runs": 1}, batch_size=16, corpus_negatives=8)


def test_rates_are_climbed_on_a_short_budget_and_the_best_is_tuned_in_full_with_one_thing_after_another(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    world = World(tiny, training, ALL_AUTO, tmp_path)
    found = world.search()
    probed = [course for course, pairs, _ in world.asked if pairs is not None]
    assert world.asked[: len(probed)] == [
        (replace(first(ALL_AUTO), learning_rate=rate), PROBE_PAIRS, 1) for rate in RATES[: len(probed)]
    ]
    assert RATES[-1] / RATES[0] >= 1e4
    assert world.measured[: 3 * len(probed)] == [(a, True) for a in PROBE_SOFTENINGS] * len(probed)

    tried = [trial for trial in found.trials if trial.stage == "in full"]
    assert world.asked[len(probed) :] == [(trial.course, None, 1) for trial in (*tried, found.trial)]
    compared = [(a, False) for a in COMPARED_SOFTENINGS] * len(tried)
    assert world.measured[3 * len(probed) :] == [*compared, *((a, False) for a in SOFTENINGS)]
    best = tried[0]
    assert best.course == replace(first(ALL_AUTO), learning_rate=best.learning_rate)
    assert (
        best.learning_rate == max((merit(trial, GATE), trial.learning_rate) for trial in found.trials[: len(probed)])[1]
    )
    left = iter(tried[1:])
    for name in ("learning_rate", "reach", "temperature", "epochs"):
        for other in _others(best.course, name):
            then = next(left)
            assert then.course == other
            if is_better(then, best, GATE):
                best = then
                break
    assert not list(left)
    assert (found.trial.stage, found.trial.course) == ("softening", best.course)
    assert found.trial == found.trials[-1]
    assert found.point == best_point(found.trial.points, GATE)
    assert found.point.dev > 0
    before = world.took_s[world.asked.index((best.course, None, 1))]
    assert world.took_s[-1] >= before  # it was read from its checkpoint, and did not take less for that
    assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 1  # the others' checkpoints are gone


def _others(course: Course, name: str) -> Sequence[Course]:
    match name:
        case "learning_rate":
            return [replace(course, learning_rate=times * course.learning_rate) for times in (GENTLER, STRONGER)]
        case "temperature":
            return [replace(course, temperature=0.03, reach=3)]
        case _:
            return [replace(course, **{name: OPEN[name][1]})]


def test_the_same_search_again_finds_the_same(tiny_folder: Path, training: TrainingSet, tmp_path: Path) -> None:
    once, again = (
        World(SentenceTransformer(str(tiny_folder), device="cpu"), training, ALL_AUTO, tmp_path / name).search()
        for name in ("once", "again")
    )
    assert once.trials == again.trials
    assert all((once.tuned.tuned[name] == again.tuned.tuned[name]).all() for name in once.tuned.tuned)


@pytest.mark.parametrize("place", [4, -5, -3, -2, -1])  # a rate, tunings in full, the last
def test_a_search_that_was_broken_off_goes_on_and_ends_the_same(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path, place: int
) -> None:
    def fresh(folder: Path) -> World:
        return World(SentenceTransformer(str(tiny_folder), device="cpu"), training, ALL_AUTO, folder)

    whole = fresh(tmp_path / "whole")
    expected = whole.search()
    place = len(whole.asked) + place if place < 0 else place
    broken = fresh(tmp_path / "broken")
    broken.fail_at = whole.asked[place]
    broken.fails = whole.asked[: place + 1].count(whole.asked[place])
    with pytest.raises(Stopped):
        broken.search()
    second = fresh(tmp_path / "broken")
    found = second.search()
    assert second.asked == whole.asked[place:]
    assert (found.trials, found.point) == (expected.trials, expected.point)
    assert all((found.tuned.tuned[name] == value).all() for name, value in expected.tuned.tuned.items())


def test_what_the_recipe_says_is_not_searched(tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path) -> None:
    world = World(tiny, training, Recipe(learning_rate=1e-3, epochs=2, soften=0.7, batch_size=16), tmp_path)
    found = world.search()
    course = Course(learning_rate=1e-3, epochs=2, reach=10, temperature=0.045)
    assert (world.asked, world.measured) == ([(course, None, 1)], [(0.7, False)])
    assert (found.trial.course, found.point.soften) == (course, 0.7)


def test_a_triplet_loss_has_neither_reach_nor_temperature_to_be_found(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = Recipe(loss="triplet", learning_rate=1e-3, epochs=1, reach="auto", temperature="auto", batch_size=16)
    world = World(tiny, training, recipe, tmp_path)
    world.search()
    assert [course for course, _, _ in world.asked] == [replace(first(recipe), learning_rate=1e-3)]


def test_what_is_best_in_one_run_is_tuned_from_several_seeds_and_the_mean_is_measured(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = Recipe(learning_rate=1e-3, epochs="auto", runs=3, batch_size=16, corpus_negatives=8, seed=5)
    world = World(tiny, training, recipe, tmp_path)
    found = world.search()
    one, three, runs = found.trials
    better = max(one, three, key=lambda trial: merit(trial, GATE))
    assert (one.epochs, three.epochs) == (1, 3)
    assert world.asked == [(one.course, None, 1), (three.course, None, 1), (better.course, None, 3)]
    assert (runs.stage, runs.course, runs.runs) == ("softening", better.course, 3)
    assert found.point == best_point(runs.points, GATE)
    again = world.search()  # from what is on disk
    assert (again.trials, again.point) == (found.trials, found.point)


def test_a_recipe_with_a_length_is_tuned_in_all_its_runs_at_once(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = Recipe(learning_rate=1e-3, epochs=2, soften=0.7, runs=2, batch_size=16)
    world = World(tiny, training, recipe, tmp_path)
    assert world.search().trial.runs == 2
    assert [(course.epochs, pairs, runs) for course, pairs, runs in world.asked] == [(2, None, 2)]
    assert world.measured == [(0.7, False)]


def test_a_point_is_the_change_from_the_base_on_the_choose_half(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    world = World(tiny, training, Recipe(learning_rate=1e-3, epochs=3, batch_size=16), tmp_path)
    tuned = world.trials.tune(THREE, None, 1)
    whole, half = (world.trials.measure(tuned, a, False) for a in (1.0, 0.5))
    after = measure(tiny, world.sets)  # the model holds what was measured last
    dev = after[DEV].scores.mrr - world.before[DEV].scores.mrr
    assert half.dev == pytest.approx(dev.mean(), abs=1e-9)
    assert 0 < half.drifts["guard"] < whole.drifts["guard"]
    assert half.dev_error > 0
    assert len(world.sets[DEV].queries.ids) < QUICK_QUERIES
    sample = world.trials.measure(tuned, 0.5, True)
    assert not sample.at_least
    assert replace(sample, at_least=half.at_least) == half  # fewer than a sample: all are asked


def test_a_point_knows_what_the_gate_would_see(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    world = World(tiny, training, ALL_AUTO, tmp_path)
    found = world.trials.measure(world.trials.tune(THREE, None, 1), 0.5, False)
    report = compare(world.before, measure(tiny, world.sets), world.sets, alpha=GATE.alpha)
    assert found.at_least == {DEV: report[DEV]["at_least"], "guard": report["guards"]["guard"]["at_least"]}


def test_rates_that_give_no_encoder_are_said_and_end_the_climb(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    world = World(tiny, training, ALL_AUTO, tmp_path)

    def tune(course: Course, pairs: int | None, runs: int) -> TuneResult:
        if course.learning_rate > 1e-6 or course.learning_rate < 2e-7:
            raise TuningFailed(f"no number at {course.learning_rate:g}")
        return world.trials.tune(course, pairs, runs)

    found = search(
        world.recipe, Bench(tune=tune, measure=world.measure, drop=world.trials.drop), gate=GATE, kept=world.kept
    )
    probes = [trial for trial in found.trials if trial.stage == "rate"]
    assert [(trial.ended is not None) for trial in probes] == [True, False, False, True]
    assert json.loads(world.kept.read_text())[0]["ended"] == "no number at 1e-07"

    def never(course: Course, *_: int | None) -> TuneResult:
        raise TuningFailed(f"no number at {course.learning_rate:g}")

    with pytest.raises(TuningFailed, match=r"No learning rate from 1e-07 to 0\.001 gave an encoder"):
        search(
            world.recipe,
            Bench(tune=never, measure=world.measure, drop=world.trials.drop),
            gate=GATE,
            kept=tmp_path / "other",
        )


def test_a_sample_has_whole_queries_by_lot(training: TrainingSet) -> None:
    some = training.sample(20, seed=3)
    assert some.queries.pairs == 20
    assert set(some.queries.ids) < set(training.queries.ids)
    assert set(some.queries.ids) != set(training.sample(20, seed=4).queries.ids)
    assert training.sample(10_000, seed=3).queries.ids == training.queries.ids
    np.testing.assert_array_equal(some.queries.relevant[0], training.queries.relevant[int(_place(training, some))])


def _place(training: TrainingSet, some: TrainingSet) -> int:
    return training.queries.ids.index(some.queries.ids[0])


def test_a_point_that_drifts_beyond_the_gate_is_not_kept() -> None:
    points = [point(0.3, 0.10, 0.0, drift=0.01), point(0.6, 0.30, 0.0, drift=0.03)]
    assert best_point(points, Gate(max_guard_loss=0.04, max_drift=0.02)).soften == 0.3
    assert best_point(points, Gate(max_guard_loss=0.04)).soften == 0.6


@pytest.mark.parametrize(
    "error",
    [
        TuningFailed("no number"),
        InvalidField("recipe.reach", "nothing was learnt."),
        InvalidField("recipe.learning_rate", "nothing moved."),
    ],
)
def test_another_tuning_that_fails_costs_nothing_but_itself(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path, error: TuningFailed | InvalidField
) -> None:
    recipe = Recipe(learning_rate=1e-3, epochs="auto", reach="auto", batch_size=16)
    world = World(tiny, training, recipe, tmp_path)

    def tune(course: Course, pairs: int | None, runs: int) -> TuneResult:
        world.asked.append((course, pairs, runs))
        if course.reach == 3:
            raise error
        return world.trials.tune(course, pairs, runs)

    for again in (False, True):  # the second goes on from the first
        found = search(
            recipe, Bench(tune=tune, measure=world.measure, drop=world.trials.drop), gate=GATE, kept=world.kept
        )
        assert found.trial.reach == 10
        assert [trial.ended for trial in found.trials] == [None, error.detail, None, None]
        assert len(world.asked) == (5 if again else 4)  # what is kept has its weights read again, nothing else is


def test_runs_that_fail_cost_nothing_but_themselves(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = Recipe(learning_rate=1e-3, epochs="auto", runs=2, batch_size=16)
    world = World(tiny, training, recipe, tmp_path)

    def tune(course: Course, pairs: int | None, runs: int) -> TuneResult:
        if runs > 1:
            raise TuningFailed("no number")
        return world.trials.tune(course, pairs, runs)

    bench = Bench(tune=tune, measure=world.measure, drop=world.trials.drop)
    for _ in range(2):  # the second goes on from the first
        found = search(recipe, bench, gate=GATE, kept=world.kept)
        assert [(t.stage, t.runs, t.ended) for t in found.trials[2:]] == [
            ("softening", 2, "no number"),
            ("softening", 1, None),
        ]
        assert found.trial == found.trials[-1]
        assert [point.soften for point in found.trial.points] == list(SOFTENINGS)


def test_an_average_that_would_not_pass_gives_way_to_the_one_run_that_would(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = Recipe(learning_rate=1e-3, epochs="auto", runs=2, batch_size=16)
    world = World(tiny, training, recipe, tmp_path)
    last = 0

    def tune(course: Course, pairs: int | None, runs: int) -> TuneResult:
        nonlocal last
        last = runs
        return world.trials.tune(course, pairs, runs)

    def measure(_tuned: TuneResult, soften: float, _quick: bool) -> Point:
        return point(soften, 0.1, 0.0, shown=0.0 if last == 1 else -0.5)

    bench = Bench(tune=tune, measure=measure, drop=world.trials.drop)
    found = search(recipe, bench, gate=Gate(), kept=world.kept)
    assert [(t.stage, t.runs) for t in found.trials[2:]] == [("softening", 2), ("softening", 1)]
    assert found.trial.runs == 1


@pytest.mark.parametrize(
    ("half", "double", "kept", "tried"),
    [
        (0.098, 0.2, GENTLER, 1),  # not told apart from the best by chance: the double is not asked for
        (0.090, 0.11, STRONGER, 2),
        (0.090, 0.09, 1.0, 2),
    ],
)
def test_where_half_the_rate_loses_the_double_is_tried(
    tiny: SentenceTransformer,
    training: TrainingSet,
    tmp_path: Path,
    half: float,
    double: float,
    kept: float,
    tried: int,
) -> None:
    recipe = Recipe(learning_rate="auto", reach="auto", temperature="auto", epochs=1, batch_size=16, corpus_negatives=8)
    world = World(tiny, training, recipe, tmp_path)
    asked: list[Course] = []

    def tune(course: Course, pairs: int | None, runs: int) -> TuneResult:
        asked.append(course)
        return world.trials.tune(course, pairs, runs)

    def measure(_tuned: TuneResult, soften: float, quick: bool) -> Point:
        if quick:
            return point(soften, 0.1 if asked[-1].learning_rate == RATES[2] else 0.0, 0.0)
        gains = {1.0: 0.1, GENTLER: half, STRONGER: double}
        dev = gains[asked[-1].learning_rate / RATES[2]] - 0.05 * (asked[-1].reach != 10)
        return point(soften, dev, 0.0)

    found = search(recipe, Bench(tune=tune, measure=measure, drop=world.trials.drop), gate=GATE, kept=world.kept)
    in_full = [trial.course for trial in found.trials if trial.stage == "in full"]
    assert [course.learning_rate / RATES[2] for course in in_full[: tried + 1]] == [1.0, GENTLER, STRONGER][: tried + 1]
    # a reach of 3 was no better here, and is tried once more with the temperature that wants it
    assert [(course.reach, course.temperature) for course in in_full[tried + 1 :]] == [(3, 0.045), (3, 0.03)]
    assert found.trial.course == replace(first(recipe), learning_rate=kept * RATES[2])


def test_a_rate_that_is_too_much_for_all_pairs_is_halved(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = Recipe(learning_rate="auto", epochs=1, batch_size=16, corpus_negatives=8)
    world = World(tiny, training, recipe, tmp_path)

    def tune(course: Course, pairs: int | None, runs: int) -> TuneResult:
        tuned = world.trials.tune(course, pairs, runs)
        if pairs is None and course.learning_rate in RATES:
            raise TuningFailed("no number")  # with its checkpoints on disk
        return tuned

    found = search(recipe, Bench(tune=tune, measure=world.measure, drop=world.trials.drop), gate=GATE, kept=world.kept)
    in_full = [trial for trial in found.trials if trial.stage == "in full"]
    assert [trial.ended for trial in in_full] == ["no number", None]
    assert found.trial.learning_rate == in_full[1].learning_rate == GENTLER * in_full[0].learning_rate
    assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 1


def test_a_reach_that_somebody_chose_and_that_teaches_nothing_is_told_as_what_it_is(tmp_path: Path) -> None:
    def tune(*_: object) -> TuneResult:
        raise InvalidField("recipe.reach", "nothing was learnt.")

    never = Bench(tune=tune, measure=lambda *_: pytest.fail("measured"), drop=lambda _: None)
    for recipe in (Recipe(learning_rate="auto", reach=1), Recipe(learning_rate=1e-3, reach=1)):
        with pytest.raises(InvalidField, match="nothing was learnt"):
            search(recipe, never, gate=GATE, kept=tmp_path / "trials.json")


def test_a_mistake_in_the_recipe_is_told_as_what_it_is(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = Recipe(learning_rate="auto", freeze=("nothing.of.the.sort",), batch_size=16)
    with pytest.raises(InvalidField, match=r"nothing\.of\.the\.sort"):
        World(tiny, training, recipe, tmp_path).search()


def test_a_torn_record_of_trials_costs_time_and_nothing_else(
    tiny: SentenceTransformer, training: TrainingSet, tmp_path: Path
) -> None:
    (tmp_path / "trials.json").write_text('[{"stage": "rate", "lear')
    world = World(tiny, training, Recipe(learning_rate=1e-3, epochs=1, soften=1, batch_size=16), tmp_path)
    assert len(world.search().trials) == 1
