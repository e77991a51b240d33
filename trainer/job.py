"""One tuning job from claim to verdict. Reads the training set, datasets and artifacts; never the store."""

import logging
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from app.encoders.admission import Registrar
from app.encoders.artifacts import BASE_KEY, ArtifactStore
from app.encoders.files import write_full
from app.encoders.spec import read_spec
from app.errors import AdiabatError, BadDataset
from app.recipe import Gate, Recipe
from app.registry import EncoderRecord, EventKind, JobRecord, JobStatus, Registry
from trainer.checkpoints import Checkpoints
from trainer.evaluate import DEV, EvaluationSet, compare, measure
from trainer.gate import judge
from trainer.heartbeat import Heartbeat
from trainer.matrix import corpus_matrix
from trainer.metrics import Scores
from trainer.publish import publish
from trainer.soften import load_softened
from trainer.stopping import Stopped
from trainer.training_set import Judged, Matrix, TrainingSet, read_measured, read_training_set
from trainer.tune import TuneResult, tune

log = logging.getLogger("adiabat.trainer")

Sets = Mapping[str, EvaluationSet]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """What a job finds at its trainer. `training_set` and `checkpoints` are this job's own folders."""

    registry: Registry
    artifacts: ArtifactStore
    registrar: Registrar
    heartbeat: Heartbeat
    training_set: Path
    checkpoints: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    record: EncoderRecord
    new: bool  # False: the same weights were registered under this name before
    status: JobStatus
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Encoder:
    record: EncoderRecord
    model: SentenceTransformer
    query_prompt: str
    passage_prompt: str


def run_job(job: JobRecord, place: Workplace) -> Outcome:
    """Tune, soften, measure, judge, publish. Raises `Stopped` on cancel, `AdiabatError` with the reason else.

    "Before" is the base, which is what the collection was embedded with, whatever the parent is.
    """
    heartbeat, registry = place.heartbeat, place.registry
    with tempfile.TemporaryDirectory(prefix="adiabat-job-") as scratch:
        folder = Path(scratch)
        heartbeat.say(phase="loading")
        base = _load(place, registry.encoders.find(BASE_KEY), folder / "base")
        training = read_training_set(place.training_set, _dataset(place, job, job.dataset))
        sets = _evaluation_sets(job, place, training.matrix, base)
        _say_missing(job, place, {"train": training.queries} | {name: each.queries for name, each in sets.items()})

        heartbeat.say(phase="measuring the base")
        before = _measure(job, place, base, sets, when="before")
        parent = base
        if job.parent_id != base.record.id:
            parent = _load(place, registry.encoders.by_id(job.parent_id), folder / "parent")
        tuned = _tune(job, place, parent, training)

        registry.jobs.move(job.id, JobStatus.EVALUATING, only_from=(JobStatus.RUNNING,), held_by=job.worker)
        steps = len(tuned.losses)
        heartbeat.say(phase="evaluating", steps=steps, step=steps)
        after = _measure(job, place, parent, sets, when="after")
        result = compare(before, after) | _figures(tuned, training, sets)
        verdict = judge(Gate(**job.gate), result)
        result["gate"] = {"passed": verdict.passed, "reasons": list(verdict.reasons)}

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


def _load(place: Workplace, record: EncoderRecord, folder: Path) -> _Encoder:
    files = place.artifacts.files(record.key)
    write_full(files, folder)
    spec = read_spec(files)
    return _Encoder(
        record=record,
        model=SentenceTransformer(str(folder), local_files_only=True),
        query_prompt=spec.query_prompt,
        passage_prompt=spec.passage_prompt,
    )


def _dataset(place: Workplace, job: JobRecord, name: str) -> Path:
    folder = place.artifacts.root / "datasets" / job.dataset_digests[name].removeprefix("sha256:")
    if not folder.is_dir():
        raise BadDataset(
            f"The content of the dataset {name!r} that this job was started with is gone; upload it again."
        )
    return folder


def _evaluation_sets(job: JobRecord, place: Workplace, stored: Matrix, base: _Encoder) -> Sets:
    """Dev over the stored passages; a guard over its own corpus where it brings one."""
    dev = read_measured(DEV, _dataset(place, job, job.dataset), stored, split="dev")
    sets = {DEV: EvaluationSet(matrix=stored, queries=dev)}
    for guard in job.guards:
        name, _, split = guard.partition(":")
        folder = _dataset(place, job, name)
        matrix = stored
        if (folder / "corpus.jsonl").exists():
            place.heartbeat.say(phase=f"embedding the corpus of {name}")
            matrix = corpus_matrix(
                base.model,
                folder / "corpus.jsonl",
                place.artifacts.root / "matrices",
                encoder_digest=base.record.digest,
                passage_prompt=base.passage_prompt,
                should_stop=place.heartbeat.should_stop,
            )
        sets[guard] = EvaluationSet(matrix=matrix, queries=read_measured(guard, folder, matrix, split=split or "test"))
    return sets


def _measure(job: JobRecord, place: Workplace, encoder: _Encoder, sets: Sets, *, when: str) -> dict[str, Scores]:
    scores = measure(encoder.model, sets, query_prompt=encoder.query_prompt, should_stop=place.heartbeat.should_stop)
    means = {name: float(each.mrr.mean()) for name, each in scores.items()}
    dev = means.pop(DEV)
    place.registry.events.tell(job.id, EventKind.MEASURED, when=when, dev=dev, guards=means)
    return scores


def _tune(job: JobRecord, place: Workplace, parent: _Encoder, training: TrainingSet) -> TuneResult:
    """The parent's model tuned and softened, in place."""
    recipe, heartbeat = Recipe(**job.recipe), place.heartbeat
    first: tuple[int, float] | None = None

    def on_step(step: int, steps: int, loss: float) -> None:
        nonlocal first
        first = first or (step, time.monotonic())  # what came before it says nothing of the rest
        eta_s = (time.monotonic() - first[1]) / max(step - first[0], 1) * (steps - step)
        heartbeat.say(phase="tuning", step=step, steps=steps, eta_s=round(eta_s, 1), loss=round(loss, 5))

    heartbeat.say(phase="mining negatives")
    tuned = tune(
        parent.model,
        training,
        recipe,
        query_prompt=parent.query_prompt,
        on_step=on_step,
        should_stop=heartbeat.should_stop,
        checkpoints=Checkpoints(place.checkpoints, say=lambda sentence: _say(job, place, sentence)),
    )
    load_softened(parent.model, tuned.start, tuned.tuned, recipe.soften)
    return tuned


def _figures(tuned: TuneResult, training: TrainingSet, sets: Sets) -> dict[str, Any]:
    return {
        "queries": {name: len(each.queries.texts) for name, each in sets.items()},
        "missing": {name: len(each.queries.missing) for name, each in sets.items() if each.queries.missing},
        "pairs": tuned.pairs,
        "tuning_s": round(tuned.seconds, 1),
        "weights": asdict(tuned.movement),
        "store_writes": training.matrix.meta.get("writes"),
    }


def _say_missing(job: JobRecord, place: Workplace, judged: Mapping[str, Judged]) -> None:
    for name, queries in judged.items():
        if queries.missing:
            _say(job, place, f"{name}: {len(queries.missing)} judgments name a passage that is not there")


def _say(job: JobRecord, place: Workplace, sentence: str) -> None:
    """A sentence for whoever follows the job. One that cannot be written is no reason to end the job."""
    log.info("job %s: %s", job.id, sentence)
    with suppress(AdiabatError):
        place.registry.events.tell(job.id, EventKind.LOG, message=sentence)
