"""`/tuning-jobs`: create, list, read, cancel."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from app.api.deps import Parts, PartsDep
from app.api.models import EncoderKey, Name, Wire
from app.errors import BadDataset, Conflict, InvalidField
from app.recipe import Gate, Recipe
from app.registry import EncoderState, JobRecord, JobStatus, NewJob

DEV = "dev"

router = APIRouter(prefix="/tuning-jobs", tags=["tuning"])

Guard = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(:[A-Za-z0-9_-]{1,64})?$")]


class TuningJobCreate(Wire):
    name: Annotated[Name, Field(description="The name of the encoder to make; it gets the next version.")]
    parent: EncoderKey = "base"
    dataset: Annotated[Name, Field(description="Splits 'train' and 'dev', over the stored passages.")]
    recipe: Recipe = Field(default_factory=Recipe)
    guards: Annotated[list[Guard], Field(max_length=32)] = Field(
        default_factory=list, description="'dataset' or 'dataset:split'; the split is 'test' if not named."
    )
    gate: Gate = Field(default_factory=Gate)
    activate: Literal["never", "if-gate-passes"] = "never"


class JobEncoder(Wire):
    name: str
    version: int


class TuningJobPublic(Wire):
    id: str
    name: str
    parent: str
    dataset: str
    guards: list[str]
    recipe: dict[str, Any]
    gate: dict[str, Any]
    activate: str
    activation: str | None = None
    status: str
    progress: dict[str, Any]
    encoder: JobEncoder | None = None
    result: dict[str, Any] | None = None
    reason: str | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class TuningJobList(Wire):
    tuning_jobs: list[TuningJobPublic]


@router.post("", response_model=TuningJobPublic, status_code=202, response_model_exclude_none=True)
def create_tuning_job(body: TuningJobCreate, parts: PartsDep, response: Response) -> TuningJobPublic:
    """Queue a tuning. It runs in the trainer's process; this service goes on answering."""
    if body.name == "base":
        raise InvalidField("name", "'base' is the passage encoder's own name; choose another.")
    if DEV in {guard.partition(":")[0] for guard in body.guards}:
        raise InvalidField(
            "guards", f"{DEV!r} is what a job's own dev split is called in its result; rename the dataset."
        )
    parent = parts.registry.encoders.find(body.parent)
    if parent.state in (EncoderState.DELETED, EncoderState.BROKEN):
        raise Conflict(f"The parent {parent.key} is {parent.state}.")
    if parent.base_digest != parts.registry.encoders.find("base@1").digest:
        raise Conflict(
            f"The parent {parent.key} is not in the base's lineage; start from the base, or from an encoder "
            "that was tuned from it."
        )
    job = parts.registry.jobs.add(
        NewJob(
            name=body.name,
            parent_id=parent.id,
            dataset=body.dataset,
            guards=body.guards,
            dataset_digests=_digests(body, parts),
            recipe=body.recipe.model_dump(mode="json"),
            gate=body.gate.model_dump(mode="json"),
            activate=body.activate,
        )
    )
    parts.jobs.wake()
    response.headers["Location"] = f"/tuning-jobs/{job.id}"
    return _public(job, parts)


@router.get("", response_model=TuningJobList, response_model_exclude_none=True)
def list_tuning_jobs(parts: PartsDep) -> TuningJobList:
    """Newest first."""
    return TuningJobList(tuning_jobs=[_public(job, parts) for job in parts.registry.jobs.all()])


@router.get("/{job_id}", response_model=TuningJobPublic, response_model_exclude_none=True)
def read_tuning_job(job_id: str, parts: PartsDep) -> TuningJobPublic:
    return _public(parts.registry.jobs.get(job_id), parts)


@router.post("/{job_id}/cancel", response_model=TuningJobPublic, status_code=202, response_model_exclude_none=True)
def cancel_tuning_job(job_id: str, parts: PartsDep) -> TuningJobPublic:
    """Ask the job to stop. It ends within one step and leaves no encoder."""
    return _public(parts.registry.jobs.cancel(job_id), parts)


def _digests(body: TuningJobCreate, parts: Parts) -> dict[str, str]:
    """Fix the content of every dataset named; refuse a split that is not there before anything starts."""
    digests = {}
    wanted = [(body.dataset, "train"), (body.dataset, "dev")]
    wanted += [(name, split or "test") for name, _, split in (guard.partition(":") for guard in body.guards)]
    for name, split in wanted:
        record = parts.registry.datasets.get(name)
        if split not in record.counts["splits"]:
            raise BadDataset(
                f"The dataset {name!r} has no split {split!r}; it has {', '.join(record.counts['splits'])}. "
                "Tuning needs 'train' and 'dev'; a guard is 'dataset' (split 'test') or 'dataset:split'."
            )
        digests[name] = record.digest
    return digests


def _public(job: JobRecord, parts: Parts) -> TuningJobPublic:
    encoder = parts.registry.encoders.by_id(job.encoder_id) if job.encoder_id is not None else None
    return TuningJobPublic(
        id=job.id,
        name=job.name,
        parent=parts.registry.encoders.by_id(job.parent_id).key,
        dataset=job.dataset,
        guards=job.guards,
        recipe=job.recipe,
        gate=job.gate,
        activate=job.activate,
        activation=job.activation,
        status=JobStatus.QUEUED if job.status is JobStatus.PREPARED else job.status,
        progress=job.progress,
        encoder=JobEncoder(name=encoder.name, version=encoder.version) if encoder else None,
        result=job.result,
        reason=job.reason,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
