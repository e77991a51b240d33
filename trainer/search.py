"""`"auto"`: finds what a recipe leaves open on the choose halves, cheap trials first.

1. Rates. Each rate of a logarithmic grid over four decades gets the same short budget, gentlest first, and is measured
   at a few softenings, which cost nothing but the measuring. Climbing ends once two rates in a row did clearly worse.
2. In full. The best rate is tuned in full, with the first of what else is open (`OPEN`). Then others, one thing after
   another, each tuned in full, measured at a few softenings and kept where it is better: half the rate, which is
   also kept where chance alone could have put it behind, and where it is not the double; then what `OPEN` names.
3. Runs. The best of these is tuned from further seeds too, and the runs' weights are averaged (`trainer.soup`).
4. Softening. That is measured at ten softenings, and the best point is what is kept. Where the average would not pass
   and the one run would, it is the one run that is measured so.

What is best: the gain in the domain plus the mean change of the guards, both in MRR@10, so that a language kept
counts as much as a question won. A point at which a guard lost more than half of what the gate allows is out. Where
one would pass the gate's own tests on the choose halves, only such points count, and where one would do so with a
quarter of the allowed loss to spare, only those: a large step makes a guard's change hard to tell, the gate refuses
what cannot be told, and what just passes on one half may well fail on the other. Of a tuning's points that do so
equally well, the gentlest within half a standard error and a twentieth of the best is kept, if its gain in the domain
is shown with as much to spare; without guards the gentlest within a whole one (the rule of Breiman, Friedman, Olshen
and Stone, "Classification and Regression Trees", 1984, section 3.4.3): what cannot be seen is not to be risked.

The same input gives the same trials and the same choice.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from app.errors import InvalidField, TuningFailed
from app.recipe import Gate, Recipe
from trainer.evaluate import DEV
from trainer.tune import TuneResult

RATES = tuple(round(10 ** (exponent / 2), 9) for exponent in range(-14, -5))  # 1e-7 to 1e-3, two to a decade
# What else may be open, with the values that are tried, in their order.
OPEN: Mapping[str, tuple[Any, Any]] = {"reach": (10, 3), "temperature": (0.045, 0.03), "epochs": (1, 3)}
GENTLER, STRONGER = 0.5, 2.0  # of the best short tuning's rate: a short budget favours large ones
PROBE_PAIRS = 2_048
PROBE_SOFTENINGS = (1.0, 0.5, 0.25)
COMPARED_SOFTENINGS = (1.0, 0.8, 0.6, 0.4)
SOFTENINGS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SPARING = 0.75  # of the loss that the gate allows: what a point needs on one half to be likely to pass on another
GIVEN_UP = 0.05  # of the best score at most, for a gentler point or rate
CLEARLY_WORSE = 0.01  # of score: what two rates in a row must be below the best before climbing ends

Stage = Literal["rate", "in full", "softening"]
Merit = tuple[int, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One encoder that was measured: changes of MRR@10 from the base, on the choose halves."""

    soften: float
    dev: float
    dev_error: float  # the standard error of `dev`
    guards: Mapping[str, float]
    drifts: Mapping[str, float]  # of the guards
    # What the gate would see of 'dev' and each guard: its change at least, at the gate's alpha. A sample has none.
    at_least: Mapping[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        return self.dev + self.guards_mean

    @property
    def unseen(self) -> float:
        """Scores this close are one to whoever chooses: half a standard error of the domain's gain, and no more than a
        twentieth of the score, or few questions would give all of it away. Where no guard says what a larger step
        costs, a whole standard error."""
        return min(self.dev_error / 2, GIVEN_UP * max(0.0, self.score)) if self.guards else self.dev_error

    @property
    def guards_mean(self) -> float:
        """0 without guards."""
        return sum(self.guards.values()) / len(self.guards) if self.guards else 0.0

    @property
    def worst(self) -> float:
        """The change of the guard that lost most; 0 without guards."""
        return min(self.guards.values(), default=0.0)

    def merit(self, gate: Gate) -> Merit:
        """Larger is better. First: 0 where a guard lost too much, 3 where the gate would say yes with something to
        spare, 2 where it would just say yes, else 1."""
        drift = max(self.drifts.values(), default=0.0)
        if self.worst < -gate.max_guard_loss / 2 or (gate.max_drift is not None and drift > gate.max_drift):
            return 0, self.worst, -self.soften
        return 1 + self._would_pass(gate, 1.0) + self._would_pass(gate, SPARING), self.score, -self.soften

    def _would_pass(self, gate: Gate, share: float) -> bool:
        """With so much of the loss that a guard is allowed."""
        asked = {name: gate.min_gain if name == DEV else -share * gate.max_guard_loss for name in self.at_least}
        return bool(asked) and all(self.at_least[name] >= least for name, least in asked.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What a tuning does where its recipe says "auto"; softening comes after it."""

    learning_rate: float
    epochs: int
    reach: int
    temperature: float

    @property
    def course(self) -> "Course":
        return Course(**{each.name: getattr(self, each.name) for each in fields(Course)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial(Course):
    """One tuning and its points; `ended` says why it has none."""

    stage: Stage
    pairs: int
    runs: int = 1
    points: tuple[Point, ...] = ()
    ended: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The trial and point to keep, that trial's weights, and all trials in their order, of which it is the last."""

    trial: Trial
    point: Point
    tuned: TuneResult
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What the search works with.

    `tune(course, pairs, runs)` tunes from the parent, on so many of the pairs (None: all), and averages so many runs;
    raises as `trainer.tune.tune` does. `measure(tuned, soften, quick)` measures that tuning softened so far, `quick`
    on a sample of the queries. `drop(course)` frees what is kept of a tuning in one run that is not wanted any more.
    """

    tune: Callable[[Course, int | None, int], TuneResult]
    measure: Callable[[TuneResult, float, bool], Point]
    drop: Callable[[Course], None]


InFull = tuple[Trial, TuneResult | None]  # None: it was done before, and its weights are on disk


def search(recipe: Recipe, bench: Bench, *, gate: Gate, kept: Path) -> Found:
    """Fill in what `recipe` leaves to "auto".

    `kept` is a file with the trials that are done: a search that was broken off goes on from it. Raises `TuningFailed`
    where no rate gave an encoder, or none that bears all pairs.
    """
    done, open_ = _Done(kept), _open(recipe)
    course, best = first(recipe), None
    if not open_:
        return _found(_in_full(recipe, bench, done, "in full", course, recipe.runs), bench, done, gate)
    if "learning_rate" in open_:
        course = replace(course, learning_rate=_best_rate(recipe, course, bench, done, gate))
        best = _try(recipe, bench, done, "in full", course)
        if best is None:  # what a short budget bears may be too much for all pairs
            course, open_ = replace(course, learning_rate=GENTLER * course.learning_rate), open_[1:]
    best = best or _in_full(recipe, bench, done, "in full", course, 1, COMPARED_SOFTENINGS)
    for name in open_:
        for other in _others(best[0].course, name, open_):
            tried = _try(recipe, bench, done, "in full", other)
            if tried is None:
                continue
            kept_other = is_better(tried[0], best[0], gate)
            best, worse = (tried, best) if kept_other else (best, tried)
            bench.drop(worse[0].course)
            if kept_other:
                break
    course = best[0].course
    last = _try(recipe, bench, done, "softening", course, recipe.runs, SOFTENINGS) if recipe.runs > 1 else None
    if last is None or merit(last[0], gate)[0] < merit(best[0], gate)[0]:
        last = _in_full(recipe, bench, done, "softening", course, 1)
    return _found(last, bench, done, gate)


def _found(kept: InFull, bench: Bench, done: "_Done", gate: Gate) -> Found:
    trial, tuned = kept
    tuned = tuned or bench.tune(trial.course, None, trial.runs)
    return Found(trial=trial, point=best_point(trial.points, gate), tuned=tuned, trials=tuple(done.trials))


def is_better(other: Trial, best: Trial, gate: Gate) -> bool:
    """Where only the domain is measured, by more than its standard error. A gentler rate need not be: it is better
    where chance alone could have put it behind."""
    more, there, unseen = merit(other, gate), merit(best, gate), best.points[0].unseen
    least = 0.0 if best.points[0].guards else unseen
    if other.learning_rate < best.learning_rate:
        least = -unseen
    if more[0] == 0:  # a guard lost too much in both: it is their losses that are compared
        least = 0.0
    return more[0] > there[0] or (more[0] == there[0] and more[1] > there[1] + least)


def _open(recipe: Recipe) -> tuple[str, ...]:
    """What of a course the recipe leaves open, in the order in which others are tried: first what makes the others
    affordable, and the longest tunings last."""
    return tuple(name for name in course_of(recipe) if getattr(recipe, name) == "auto")


def course_of(recipe: Recipe) -> tuple[str, ...]:
    """What of a course the recipe's loss goes by."""
    return ("learning_rate", *(("reach", "temperature") if recipe.loss == "infonce" else ()), "epochs")


def first(recipe: Recipe) -> Course:
    """What the recipe says, and where it says "auto" what is tried first."""
    tried = {"learning_rate": RATES[0]} | {name: values[0] for name, values in OPEN.items()}
    said = {name: getattr(recipe, name) for name in tried}
    return Course(**{name: tried[name] if value == "auto" else value for name, value in said.items()})


def _others(course: Course, name: str, open_: Sequence[str]) -> tuple[Course, ...]:
    """What else to try of this thing, until one is kept. A small temperature, which is harsh on what ranks low, is
    tried with the small reach, which leaves that alone, if the reach is open too."""
    if name == "learning_rate":
        return tuple(replace(course, learning_rate=times * course.learning_rate) for times in (GENTLER, STRONGER))
    changed = {name} | ({"reach"} if name == "temperature" and "reach" in open_ else set())
    return (replace(course, **{each: OPEN[each][1] for each in changed}),)


def _try(
    recipe: Recipe,
    bench: Bench,
    done: "_Done",
    stage: Stage,
    course: Course,
    runs: int = 1,
    softenings: Sequence[float] = COMPARED_SOFTENINGS,
) -> InFull | None:
    """None for what gives no encoder: there is another one, of the same recipe."""
    try:
        return _in_full(recipe, bench, done, stage, course, runs, softenings)
    except (TuningFailed, InvalidField) as error:
        if not done.find(stage, course, runs):
            done.add(Trial(**asdict(course), stage=stage, pairs=0, runs=runs, ended=error.detail))
        if stage == "in full":
            bench.drop(course)
        return None


def _in_full(
    recipe: Recipe,
    bench: Bench,
    done: "_Done",
    stage: Stage,
    course: Course,
    runs: int,
    softenings: Sequence[float] = SOFTENINGS,
) -> InFull:
    """On all pairs. What is known already is neither tuned nor measured again."""
    if there := done.find(stage, course, runs):
        if there.ended:
            raise TuningFailed(there.ended)
        return there, None
    tuned = bench.tune(course, None, runs)
    points = tuple(bench.measure(tuned, a, False) for a in (softenings if recipe.soften == "auto" else [recipe.soften]))
    return done.add(Trial(**asdict(course), stage=stage, pairs=tuned.pairs, runs=runs, points=points)), tuned


def merit(trial: Trial, gate: Gate) -> Merit:
    """Of the best point it has, or would have half-way between two softenings: few are measured, and figures change
    smoothly from one to the next."""
    points = sorted(trial.points, key=lambda point: point.soften)
    return max(point.merit(gate) for point in (*points, *map(_half_way, points, points[1:])))


def _half_way(one: Point, other: Point) -> Point:
    def mean(of_one: Mapping[str, float], of_other: Mapping[str, float]) -> Mapping[str, float]:
        return {name: (of_one[name] + of_other[name]) / 2 for name in of_one}

    return Point(
        soften=(one.soften + other.soften) / 2,
        dev=(one.dev + other.dev) / 2,
        dev_error=(one.dev_error + other.dev_error) / 2,
        guards=mean(one.guards, other.guards),
        drifts=mean(one.drifts, other.drifts),
        at_least=mean(one.at_least, other.at_least),
    )


def best_point(points: Sequence[Point], gate: Gate) -> Point:
    """The one to keep: the gentlest of those that are as good as the best, as far as can be seen."""
    best = max(points, key=lambda point: point.merit(gate))
    held = best.merit(gate)[0]
    if best.guards and held < 2:  # none would pass
        return best

    def is_near(point: Point) -> bool:
        shown = not best.guards or point.at_least[DEV] >= gate.min_gain + best.unseen
        return shown and point.merit(gate)[0] == held and point.score >= best.score - best.unseen

    return min([best, *filter(is_near, points)], key=lambda point: point.soften)


def _best_rate(recipe: Recipe, course: Course, bench: Bench, done: "_Done", gate: Gate) -> float:
    softenings = PROBE_SOFTENINGS if recipe.soften == "auto" else (recipe.soften,)
    climbed: list[tuple[Merit, float]] = []  # best merit, rate
    for rate in RATES:
        probed = replace(course, learning_rate=rate, epochs=1)
        trial = done.find("rate", probed) or done.add(_probe(probed, bench, softenings))
        if trial.points:
            climbed.append((merit(trial, gate), rate))
        if climbed and (trial.ended or _past_the_top([merit for merit, _ in climbed])):
            break  # a larger rate would only forget more
    if not climbed:
        raise TuningFailed(
            f"No learning rate from {RATES[0]:g} to {RATES[-1]:g} gave an encoder. The last: {trial.ended}"
        )
    return max(climbed)[1]


def _probe(course: Course, bench: Bench, softenings: Sequence[float]) -> Trial:
    try:
        tuned = bench.tune(course, PROBE_PAIRS, 1)
    except (TuningFailed, InvalidField) as error:  # no number any more, or a rate that moves nothing
        if isinstance(error, InvalidField) and error.data["field"] != "recipe.learning_rate":
            raise
        return Trial(**asdict(course), stage="rate", pairs=PROBE_PAIRS, ended=error.detail)
    points = tuple(bench.measure(tuned, a, True) for a in softenings)
    return Trial(**asdict(course), stage="rate", pairs=tuned.pairs, points=points)


def _past_the_top(merits: Sequence[Merit]) -> bool:
    held, score, _ = max(merits)
    return len(merits) > 2 and all(m[0] < held or m[1] < score - CLEARLY_WORSE for m in merits[-2:])


class _Done:
    """The trials so far, on disk after each one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trials: list[Trial] = []
        try:
            for each in json.loads(path.read_text()) if path.exists() else ():
                points = tuple(Point(**point) for point in each.pop("points"))
                self.trials.append(Trial(**each, points=points))
        except (ValueError, TypeError, KeyError):  # torn by a crash, or of another version: nothing is lost but time
            self.trials = []

    def find(self, stage: Stage, course: Course, runs: int = 1) -> Trial | None:
        wanted = stage, course, runs
        return next((trial for trial in self.trials if (trial.stage, trial.course, trial.runs) == wanted), None)

    def add(self, trial: Trial) -> Trial:
        self.trials.append(trial)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps([asdict(each) for each in self.trials]))
        draft.replace(self._path)
        return trial
