"""One tuning job from claim to verdict. Reads the training set, datasets and artifacts; never the store."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from app.encoders.artifacts import BASE_KEY
from app.recipe import Gate, Recipe
from app.registry import EncoderRecord, EventKind, JobRecord, JobStatus
from trainer.checkpoints import Checkpoints
from trainer.evaluate import DEV, EvaluationSet, Measured, Sets, compare, glance, halve, means, measure
from trainer.gate import judge
from trainer.publish import publish
from trainer.soften import load_softened
from trainer.stopping import Stopped
from trainer.training_set import Judged, Matrix, TrainingSet, read_measured, read_training_set
from trainer.tune import TuneResult, tune
from trainer.watch import Look, Watch
from trainer.workplace import Encoder, Workplace

CHOOSE, PROVE = "choose", "prove"
HALVES_SEED = 0  # one for all jobs: what one was chosen by, no other is proved with

Halves = Mapping[str, Sets]  # by half
Measurements = Mapping[str, Mapping[str, Measured]]  # by half, then by set


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    record: EncoderRecord
    new: bool  # False: the same weights were registered under this name before
    status: JobStatus
    result: dict[str, Any]


def run_job(job: JobRecord, place: Workplace) -> Outcome:
    """Tune, soften, measure, judge, publish. Raises `Stopped` on cancel, `AdiabatError` with the reason else.

    "Before" is the base, which is what the collection was embedded with, whatever the parent is. What is chosen is
    chosen by the choose half of each set; gate and result speak of the prove half.
    """
    heartbeat, registry = place.heartbeat, place.registry
    recipe, gate = Recipe(**job.recipe), Gate(**job.gate)
    with tempfile.TemporaryDirectory(prefix="adiabat-job-") as scratch:
        folder = Path(scratch)
        heartbeat.say(phase="loading")
        base = place.load(registry.encoders.find(BASE_KEY), folder / "base")
        training = read_training_set(place.training_set, place.dataset(job.dataset_digests, job.dataset))
        sets = _evaluation_sets(job, place, training.matrix, base)
        _say_missing(job, place, {"train": training.queries} | {name: each.queries for name, each in sets.items()})
        halves = dict(zip((CHOOSE, PROVE), halve(sets, seed=HALVES_SEED), strict=True))

        heartbeat.say(phase="measuring the base")
        before = _measure(job, place, base, halves, when="before")
        parent, started = base, before
        if job.parent_id != base.record.id:
            parent = place.load(registry.encoders.by_id(job.parent_id), folder / "parent")
            started = _measure(job, place, parent, halves, when="parent")
        watch = _watch(job, place, parent, recipe, halves[CHOOSE], before[CHOOSE])
        tuned = _tune(job, place, parent, recipe, training, watch)
        load_softened(parent.model, tuned.start, tuned.tuned, recipe.soften)

        registry.jobs.move(job.id, JobStatus.EVALUATING, only_from=(JobStatus.RUNNING,), held_by=job.worker)
        steps = len(tuned.losses)
        heartbeat.say(phase="evaluating", steps=steps, step=steps)
        after = _measure(job, place, parent, halves, when="after")
        result = compare(before[PROVE], after[PROVE], halves[PROVE], alpha=gate.alpha)
        verdict = judge(gate, result)
        for name, held in verdict.held.items():
            result["guards"][name]["held"] = held
        result |= {
            CHOOSE: _by_role(means(before[CHOOSE]), means(after[CHOOSE])),
            "parent": _apart(means(started[PROVE])),
            "halves": {"seed": HALVES_SEED} | {half: _sizes(of) for half, of in halves.items()},
            "gate": {"passed": verdict.passed, "reasons": list(verdict.reasons)},
            **_figures(tuned, training, sets),
        }

        heartbeat.say(phase="publishing", steps=steps, step=steps)
        if heartbeat.should_stop():
            raise Stopped
        record, new = publish(
            parent.model,
            folder / "encoder",
            job,
            base=base.record,
            parent=parent.record,
            result=result,
            verdict=verdict,
            registrar=place.registrar,
        )
        status = JobStatus.SUCCEEDED if verdict.passed else JobStatus.REJECTED
        return Outcome(record=record, new=new, status=status, result=result)


def _evaluation_sets(job: JobRecord, place: Workplace, stored: Matrix, base: Encoder) -> Sets:
    """Dev over the stored passages; a guard over its own corpus where it brings one."""
    dev = read_measured(DEV, place.dataset(job.dataset_digests, job.dataset), stored, split="dev")
    sets = {DEV: EvaluationSet(matrix=stored, queries=dev)}
    for guard in job.guards:
        name, _, split = guard.partition(":")
        folder = place.dataset(job.dataset_digests, name)
        matrix = place.own_matrix(name, folder, base) or stored
        sets[guard] = EvaluationSet(matrix=matrix, queries=read_measured(guard, folder, matrix, split=split or "test"))
    return sets


def _measure(job: JobRecord, place: Workplace, encoder: Encoder, halves: Halves, *, when: str) -> Measurements:
    """What the encoder finds on each half of each set, told as an event per half."""
    found = {}
    for half, sets in halves.items():
        found[half] = measure(
            encoder.model, sets, query_prompt=encoder.query_prompt, should_stop=place.heartbeat.should_stop
        )
        place.registry.events.tell(job.id, EventKind.MEASURED, when=when, half=half, **_apart(means(found[half])))
    return found


def _apart(figures: Mapping[str, float]) -> dict[str, Any]:
    """Dev by itself and the guards by name."""
    return {"dev": figures[DEV], "guards": {name: figure for name, figure in figures.items() if name != DEV}}


def _by_role(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    both = {name: {"before": before[name], "after": after[name]} for name in before}
    return {"dev": both.pop(DEV), "guards": both}


def _sizes(sets: Sets) -> dict[str, int]:
    return {name: len(each.queries.ids) for name, each in sets.items()}


def _watch(
    job: JobRecord, place: Workplace, parent: Encoder, recipe: Recipe, choose: Sets, base: Mapping[str, Measured]
) -> Watch:
    """Looks at the choose halves as the encoder would find them if the tuning ended now, softened."""

    def watch(step: int, start: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> Look:
        load_softened(parent.model, start, tuned, recipe.soften)
        found, drifts = glance(
            parent.model, choose, base, query_prompt=parent.query_prompt, should_stop=place.heartbeat.should_stop
        )
        figures = {"when": "during", "step": step, "half": CHOOSE, "drift": drifts, **_apart(found)}
        place.registry.events.tell(job.id, EventKind.MEASURED, **figures)
        return Look(
            step=step,
            dev=found[DEV],
            drift=max((drifted for name, drifted in drifts.items() if name != DEV), default=0.0),
        )

    return watch


def _tune(
    job: JobRecord, place: Workplace, parent: Encoder, recipe: Recipe, training: TrainingSet, watch: Watch
) -> TuneResult:
    """The parent's model tuned, in place."""
    heartbeat = place.heartbeat
    first: tuple[int, float] | None = None

    def on_step(step: int, steps: int, loss: float) -> None:
        nonlocal first
        first = first or (step, time.monotonic())  # what came before it says nothing of the rest
        eta_s = (time.monotonic() - first[1]) / max(step - first[0], 1) * (steps - step)
        heartbeat.say(phase="tuning", step=step, steps=steps, eta_s=round(eta_s, 1), loss=round(loss, 5))

    heartbeat.say(phase="mining negatives")
    return tune(
        parent.model,
        training,
        recipe,
        query_prompt=parent.query_prompt,
        on_step=on_step,
        should_stop=heartbeat.should_stop,
        watch=watch,
        checkpoints=Checkpoints(place.checkpoints, say=lambda sentence: place.say(job.id, sentence)),
    )


def _figures(tuned: TuneResult, training: TrainingSet, sets: Sets) -> dict[str, Any]:
    return {
        "queries": _sizes(sets),
        "missing": {name: len(each.queries.missing) for name, each in sets.items() if each.queries.missing},
        "pairs": tuned.pairs,
        "tuning_s": round(tuned.seconds, 1),
        "weights": asdict(tuned.movement),
        "looks": [asdict(look) for look in tuned.looks],
        "ended": tuned.ended,
        "store_writes": training.matrix.meta.get("writes"),
    }


def _say_missing(job: JobRecord, place: Workplace, judged: Mapping[str, Judged]) -> None:
    for name, queries in judged.items():
        if queries.missing:
            place.say(job.id, f"{name}: {len(queries.missing)} judgments name a passage that is not there")
