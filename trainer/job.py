"""One tuning job from claim to verdict. Reads the training set, datasets and artifacts; never the store."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.encoders.artifacts import BASE_KEY
from app.recipe import Gate, Recipe
from app.registry import EncoderRecord, EventKind, JobRecord, JobStatus
from trainer.evaluate import DEV, EvaluationSet, Measured, Sets, compare, halve, means, measure
from trainer.gate import judge
from trainer.publish import publish
from trainer.search import Bench, Found, course_of, search
from trainer.soften import load_softened
from trainer.stopping import Stopped
from trainer.training_set import Judged, Matrix, TrainingSet, read_measured, read_training_set
from trainer.trials import Trials
from trainer.tune import TuneResult
from trainer.workplace import Encoder, Workplace

CHOOSE, PROVE = "choose", "prove"
HALVES_SEED = 0  # one for all jobs: what one was chosen by, no other is proved with

Halves = Mapping[str, Sets]  # by half
Measurements = Mapping[str, Mapping[str, Measured]]  # by half, then by set


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    record: EncoderRecord
    status: JobStatus
    result: dict[str, Any]


def run_job(job: JobRecord, place: Workplace) -> Outcome:
    """Tune, soften, measure, judge, publish. Raises `Stopped` on cancel, `AdiabatError` with the reason else.

    "Before" is the base, which is what the collection was embedded with, whatever the parent is. What is chosen is
    chosen by the choose half of each set; gate and result speak of the prove half.
    """
    heartbeat, registry = place.heartbeat, place.registry
    recipe, gate = Recipe(**job.recipe), Gate(**job.gate)
    place.checkpoints.mkdir(parents=True, exist_ok=True)  # what a killed trainer leaves there is removed with the job
    with tempfile.TemporaryDirectory(dir=place.checkpoints) as scratch:
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
        found = _search(job, place, parent, recipe, gate, training, halves[CHOOSE], before[CHOOSE])
        tuned, point = found.tuned, found.point
        load_softened(parent.model, tuned.start, tuned.tuned, point.soften)

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
            "chosen": {
                **{name: value for name, value in asdict(found.trial.course).items() if name in course_of(recipe)},
                "runs": found.trial.runs,
                "soften": point.soften,
            },
            "search": [asdict(trial) for trial in found.trials],
            **_figures(tuned, training, sets),
        }

        heartbeat.say(phase="publishing", steps=steps, step=steps)
        if heartbeat.should_stop():
            raise Stopped
        record = publish(
            parent.model,
            folder / "encoder",
            job,
            base=base.record,
            parent=parent.record,
            result=result,
            verdict=verdict,
            found=found,
            passage_encoder=place.artifacts.manifest(BASE_KEY).source,
            registrar=place.registrar,
            jobs=registry.jobs,
        )
        status = JobStatus.SUCCEEDED if verdict.passed else JobStatus.REJECTED
        return Outcome(record=record, status=status, result=result)


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
        said = {"when": when, "half": half, **_apart(means(found[half]))}
        place.registry.events.tell(job.id, EventKind.MEASURED, held_by=job.worker, **said)
    return found


def _apart(figures: Mapping[str, float]) -> dict[str, Any]:
    """Dev by itself and the guards by name."""
    return {"dev": figures[DEV], "guards": {name: figure for name, figure in figures.items() if name != DEV}}


def _by_role(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    both = {name: {"before": before[name], "after": after[name]} for name in before}
    return {"dev": both.pop(DEV), "guards": both}


def _sizes(sets: Sets) -> dict[str, int]:
    return {name: len(each.queries.ids) for name, each in sets.items()}


def _search(
    job: JobRecord,
    place: Workplace,
    parent: Encoder,
    recipe: Recipe,
    gate: Gate,
    training: TrainingSet,
    sets: Sets,
    before: Mapping[str, Measured],
) -> Found:
    """What the recipe leaves open is found, by the choose halves; a recipe that leaves nothing open is tuned."""
    heartbeat = place.heartbeat
    phase = ""
    began: tuple[int, float] | None = None

    def say(now: str) -> None:
        nonlocal phase, began
        phase, began = now, None
        heartbeat.say(phase=phase)

    def on_step(step: int, steps: int, loss: float) -> None:
        nonlocal began
        began = began or (step, time.monotonic())  # what came before it says nothing of the rest
        eta_s = (time.monotonic() - began[1]) / max(step - began[0], 1) * (steps - step)
        heartbeat.say(phase=phase, step=step, steps=steps, eta_s=round(eta_s, 1), loss=round(loss, 5))

    def looked(step: int, figures: Mapping[str, float], drifts: Mapping[str, float]) -> None:
        said = {"when": "during", "step": step, "half": CHOOSE, "drift": drifts, **_apart(figures)}
        place.registry.events.tell(job.id, EventKind.MEASURED, held_by=job.worker, **said)

    trials = Trials(
        parent.model,
        training,
        recipe,
        sets,
        before,
        query_prompt=parent.query_prompt,
        alpha=gate.alpha,
        folder=place.checkpoints,
        should_stop=heartbeat.should_stop,
        say=say,
        log=lambda sentence: place.say(job, sentence),
        on_step=on_step,
        looked=looked,
        share=partial(place.share_checkpoints, job),
        together=partial(
            place.ranks.tuning,
            encoder=parent.folder,
            training_set=place.training_set,
            dataset=place.dataset(job.dataset_digests, job.dataset),
            prompt=parent.query_prompt,
        ),
    )
    bench = Bench(tune=trials.tune, measure=trials.measure, drop=trials.drop)
    return search(recipe, bench, gate=gate, kept=place.checkpoints / "trials.json")


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
            place.say(job, f"{name}: {len(queries.missing)} judgments name a passage that is not there")
