"""From a tuned model to a registered encoder, by the same road as `POST /encoders`."""

from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sqlalchemy import Connection

from app.encoders.admission import Candidate, Registrar
from app.encoders.artifacts import Manifest
from app.encoders.digest import digest_encoder
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import read_spec
from app.registry import EncoderRecord, EncoderState, JobRecord, Jobs, JobStatus
from trainer.card import write_card
from trainer.gate import Verdict
from trainer.search import Found
from trainer.stopping import Stopped


def publish(
    model: SentenceTransformer,
    folder: Path,
    job: JobRecord,
    *,
    base: EncoderRecord,
    parent: EncoderRecord,
    result: dict[str, Any],
    verdict: Verdict,
    found: Found,
    passage_encoder: str,
    registrar: Registrar,
    jobs: Jobs,
) -> EncoderRecord:
    """Save `model` to `folder` with its lineage and card, then register it; rejected ones too, marked as such.
    `passage_encoder` is what the base was made from.

    The encoder and the end of the job become visible together, and only while the job is this trainer's. Raises
    `Stopped` where it is not any more, or somebody asked for its end.
    """
    model.save(str(folder), create_model_card=False, safe_serialization=True)
    write_card(
        folder,
        job,
        result,
        base=base,
        parent=parent,
        trials=found.trials,
        losses=found.tuned.losses,
        passage_encoder=passage_encoder,
    )
    files = EncoderFiles(folder, None)
    spec = read_spec(files)
    figures = {name: value for name, value in result.items() if name not in ("search", "looks")}  # the job's own story
    metrics = {**figures, "verdict": "; ".join(verdict.reasons), "job": job.id}
    Manifest(
        digest=digest_encoder(files, spec),
        base_digest=base.digest,
        parent_digest=parent.digest,
        form="full",
        dimension=spec.dimension,
        max_length=spec.max_length,
        query_prompt=spec.query_prompt,
        passage_prompt=spec.passage_prompt,
        recipe=job.recipe | result["chosen"],
        metrics=metrics,
    ).write(folder)

    def require_held(connection: Connection) -> None:
        if not jobs.is_held(connection, job):
            raise Stopped

    def finish(connection: Connection, record: EncoderRecord, _new: bool) -> None:
        status = JobStatus.SUCCEEDED if verdict.passed else JobStatus.REJECTED
        reason = None if verdict.passed else f"the gate said no: {'; '.join(verdict.reasons)}"
        values = {"encoder_id": record.id, "result": result, "reason": reason}
        jobs.finish(connection, job, status, told={"encoder": record.key}, **values)

    record, _ = registrar.register(
        Candidate(
            name=job.name,
            source=folder,
            said_source=f"tuning job {job.id}",
            description=f"Tuned from {parent.key} on {job.dataset}.",
            state=EncoderState.READY if verdict.passed else EncoderState.REJECTED,
            metrics=metrics,
        ),
        also=finish,
        first=require_held,
    )
    return record
