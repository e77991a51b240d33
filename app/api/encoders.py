"""`/encoders`: list, read, register, delete."""

from pathlib import Path

from fastapi import APIRouter, Response

from app.api.deps import Parts, PartsDep
from app.encoders.admission import Candidate
from app.encoders.artifacts import BASE_KEY
from app.encoders.sources import check_source
from app.errors import Conflict, EncoderInUse, InvalidField
from app.registry import EncoderRecord, EncoderState
from app.registry.encoders import parse_key
from app.wire.encoders import EncoderCreate, EncoderList, EncoderPublic, Lineage

router = APIRouter(prefix="/encoders", tags=["encoders"])


@router.get("", response_model=EncoderList, response_model_exclude_none=True)
def list_encoders(parts: PartsDep) -> EncoderList:
    return EncoderList(encoders=[public(record, parts) for record in parts.registry.encoders.all()])


@router.get("/{key}", response_model=EncoderPublic, response_model_exclude_none=True)
def read_encoder(key: str, parts: PartsDep) -> EncoderPublic:
    """By `name@version`; by name alone the newest ready one, with all versions."""
    record = parts.registry.encoders.find(key)
    answer = public(record, parts)
    if parse_key(key)[1] is None:
        versions = [other.version for other in parts.registry.encoders.versions(record.name)]
        answer = answer.model_copy(update={"versions": versions})
    return answer


@router.post("", response_model=EncoderPublic, status_code=201, response_model_exclude_none=True)
def register_encoder(body: EncoderCreate, parts: PartsDep, response: Response) -> EncoderPublic:
    """Register a sentence-transformers folder, or what a tuning job made. The checks that ran come back."""
    if body.name == "base":
        raise InvalidField("name", "'base' is the passage encoder's own name; choose another.")
    source, source_base = _source(body, parts)
    record, new = parts.registrar.register(
        Candidate(
            name=body.name,
            source=source,
            source_base=source_base,
            said_source=body.source.path or f"job {body.source.job}",
            description=body.description,
            labels=body.labels,
            force=body.force,
        )
    )
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/encoders/{record.key}"
    return public(record, parts)


@router.delete("/{key}", status_code=204)
def delete_encoder(key: str, parts: PartsDep) -> Response:
    """Delete `name@version`. Refused while it is active, previous, the base, or in use by a job."""
    if parse_key(key)[1] is None:
        raise InvalidField("key", f"{key!r} names no version; DELETE /encoders/{key}@1 deletes one.")
    record = parts.registry.encoders.find(key)
    if record.state is EncoderState.DELETED:
        return Response(status_code=204)
    with parts.switcher.exclusive():  # no activation may slip in between the check and the deletion
        _check_unused(record, parts)
        parts.registry.encoders.set_state(record.id, EncoderState.DELETED)
    parts.pool.drop(record.id)
    parts.artifacts.remove(record.key)
    return Response(status_code=204)


def _check_unused(record: EncoderRecord, parts: Parts) -> None:
    newest = parts.registry.activations.newest(2)
    roles = {activation.encoder_id: role for activation, role in zip(newest[::-1], _roles(len(newest)), strict=True)}
    if record.key == BASE_KEY:
        raise EncoderInUse(f"{record.key} is the base of the collection and is never deleted.")
    if record.id in roles:
        raise EncoderInUse(f"{record.key} is the {roles[record.id]} encoder; activate another first.")
    if jobs := parts.registry.jobs.uses_encoder(record.id):
        raise EncoderInUse(f"{record.key} is the parent of the unfinished tuning job {jobs[0]}; cancel it first.")


def _roles(count: int) -> list[str]:
    return ["previous", "active"][-count:] if count else []


def _source(body: EncoderCreate, parts: Parts) -> tuple[Path, Path | None]:
    if body.source.path is not None:
        return check_source(body.source.path, parts.settings.source_dirs), None
    job = parts.registry.jobs.get(body.source.job or "")
    if job.encoder_id is None:
        raise Conflict(f"The job {job.id} is {job.status} and has made no encoder.")
    files = parts.artifacts.files(parts.registry.encoders.by_id(job.encoder_id).key)
    return files.own, files.base.own if files.base else None


def public(record: EncoderRecord, parts: Parts) -> EncoderPublic:
    return EncoderPublic(
        name=record.name,
        version=record.version,
        digest=record.digest,
        lineage=Lineage(base=record.base_digest, parent=record.parent_digest, digest=record.digest),
        admission=record.admission,
        state=record.state,
        active=parts.slot.current.encoder.record.id == record.id,
        size_bytes=record.size_bytes,
        description=record.description,
        labels=record.labels,
        metrics=record.metrics,
        checks=record.checks,
        created_at=record.created_at,
    )
