"""One tuning job from claim to verdict. Reads the training set, datasets and artifacts; never the store."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from app.encoders.admission import Registrar
from app.encoders.artifacts import BASE_KEY, ArtifactStore
from app.encoders.files import write_full
from app.encoders.spec import read_spec
from app.errors import BadDataset
from app.recipe import Gate, Recipe
from app.registry import EncoderRecord, JobRecord, JobStatus, Registry
from trainer.evaluate import DEV, EvaluationSet, compare, measure
from trainer.gate import judge
from trainer.heartbeat import Heartbeat
from trainer.matrix import corpus_matrix
from trainer.publish import publish
from trainer.soften import load_softened
from trainer.stopping import Stopped
from trainer.training_set import Matrix, read_measured, read_training_set
from trainer.tune import tune


def run_job(
    job: JobRecord,
    *,
    registry: Registry,
    artifacts: ArtifactStore,
    registrar: Registrar,
    training_set: Path,
    heartbeat: Heartbeat,
) -> tuple[EncoderRecord, JobStatus, dict[str, Any]]:
    """Tune, soften, measure, judge, publish. Raises `Stopped` on cancel, `AdiabatError` with the reason else.

    "Before" is the base, which is what the collection was embedded with, whatever the parent is.
    """
    recipe, gate = Recipe(**job.recipe), Gate(**job.gate)
    base = registry.encoders.find(BASE_KEY)
    parent = registry.encoders.by_id(job.parent_id)
    dataset = _dataset(artifacts, job, job.dataset)
    with tempfile.TemporaryDirectory(prefix="adiabat-job-") as scratch:
        folder = Path(scratch)
        heartbeat.say(phase="loading")
        base_model = _load(artifacts, BASE_KEY, folder / "base")
        training = read_training_set(training_set, dataset)
        sets = _evaluation_sets(job, artifacts, training.matrix, base_model, base, heartbeat)
        prompt = read_spec(artifacts.files(parent.key)).query_prompt

        heartbeat.say(phase="measuring the base")
        base_prompt = read_spec(artifacts.files(BASE_KEY)).query_prompt
        before = measure(base_model, sets, query_prompt=base_prompt, should_stop=heartbeat.should_stop)
        model = base_model if parent.key == BASE_KEY else _load(artifacts, parent.key, folder / "parent")

        first_step_at = 0.0

        def on_step(step: int, steps: int, loss: float) -> None:
            nonlocal first_step_at
            first_step_at = first_step_at or time.monotonic()  # mining came before and says nothing of the rest
            eta_s = (time.monotonic() - first_step_at) / max(step - 1, 1) * (steps - step)
            heartbeat.say(phase="tuning", step=step, steps=steps, eta_s=round(eta_s, 1), loss=round(loss, 5))

        heartbeat.say(phase="mining negatives")
        tuned = tune(model, training, recipe, query_prompt=prompt, on_step=on_step, should_stop=heartbeat.should_stop)
        load_softened(model, tuned.start, tuned.tuned, recipe.soften)

        registry.jobs.move(job.id, JobStatus.EVALUATING, only_from=(JobStatus.RUNNING,))
        heartbeat.say(phase="evaluating", steps=len(tuned.losses), step=len(tuned.losses))
        after = measure(model, sets, query_prompt=prompt, should_stop=heartbeat.should_stop)
        result = compare(before, after) | {
            "queries": {name: len(each.queries.texts) for name, each in sets.items()},
            "missing": {name: len(each.queries.missing) for name, each in sets.items() if each.queries.missing},
            "pairs": tuned.pairs,
            "tuning_s": round(tuned.seconds, 1),
            "weights": asdict(tuned.movement),
            "store_writes": training.matrix.meta.get("writes"),
        }
        verdict = judge(gate, result)
        result["gate"] = {"passed": verdict.passed, "reasons": list(verdict.reasons)}

        heartbeat.say(phase="publishing", steps=len(tuned.losses), step=len(tuned.losses))
        if heartbeat.should_stop():
            raise Stopped
        record = publish(
            model,
            folder / "encoder",
            job,
            base=base,
            parent=parent,
            result=result,
            verdict=verdict,
            registrar=registrar,
        )
        return record, JobStatus.SUCCEEDED if verdict.passed else JobStatus.REJECTED, result


def _load(artifacts: ArtifactStore, key: str, folder: Path) -> SentenceTransformer:
    write_full(artifacts.files(key), folder)
    return SentenceTransformer(str(folder), local_files_only=True)


def _dataset(artifacts: ArtifactStore, job: JobRecord, name: str) -> Path:
    folder = artifacts.root / "datasets" / job.dataset_digests[name].removeprefix("sha256:")
    if not folder.is_dir():
        raise BadDataset(
            f"The content of the dataset {name!r} that this job was started with is gone; upload it again."
        )
    return folder


def _evaluation_sets(
    job: JobRecord,
    artifacts: ArtifactStore,
    stored: Matrix,
    base_model: SentenceTransformer,
    base: EncoderRecord,
    heartbeat: Heartbeat,
) -> dict[str, EvaluationSet]:
    """Dev over the stored passages; a guard over its own corpus where it brings one."""
    sets = {
        DEV: EvaluationSet(
            matrix=stored, queries=read_measured(DEV, _dataset(artifacts, job, job.dataset), stored, split="dev")
        )
    }
    passage_prompt = read_spec(artifacts.files(BASE_KEY)).passage_prompt
    for guard in job.guards:
        name, _, split = guard.partition(":")
        folder = _dataset(artifacts, job, name)
        matrix = stored
        if (folder / "corpus.jsonl").exists():
            heartbeat.say(phase=f"embedding the corpus of {name}")
            matrix = corpus_matrix(
                base_model,
                folder / "corpus.jsonl",
                artifacts.root / "matrices",
                encoder_digest=base.digest,
                passage_prompt=passage_prompt,
                should_stop=heartbeat.should_stop,
            )
        sets[guard] = EvaluationSet(matrix=matrix, queries=read_measured(guard, folder, matrix, split=split or "test"))
    return sets
