"""`/encoders`: list, read, register, delete, download."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import BinaryIO

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.api.deps import Parts, PartsDep
from app.api.description import one_of_bodies
from app.api.idempotency import IdempotencyKey, once
from app.api.listing import Brief, Containing, Limit, Offset, briefly
from app.api.queries import check_new_name
from app.api.scopes import Scoped
from app.api.uploads import content_type, read_form, read_json
from app.encoders.admission import Candidate
from app.encoders.artifacts import BASE_KEY
from app.encoders.packed import pack_registered
from app.encoders.sources import Source, from_archive, from_hub, from_job, from_path
from app.errors import EncoderInUse, InvalidField
from app.registry import Answer, EncoderRecord, EncoderState, JobRecord, Keep
from app.registry.encoders import parse_key
from app.wire.encoders import (
    EncoderCreate,
    EncoderFields,
    EncoderList,
    EncoderPublic,
    EncoderSource,
    EncoderUpload,
    Lineage,
)

CALL = "POST /encoders"
FORM = "multipart/form-data"
TAR = "application/x-tar"

router = APIRouter(prefix="/encoders", tags=["encoders"], route_class=Scoped)


@router.get("", response_model=EncoderList, response_model_exclude_none=True)
def list_encoders(
    parts: PartsDep, limit: Limit = None, offset: Offset = 0, brief: Brief = False, contains: Containing = None
) -> EncoderList:
    """By name and version."""
    found = [public(record, parts) for record in parts.registry.encoders.all(limit, offset, contains or "")]
    if brief:
        found = [each.model_copy(update={"metrics": briefly(each.metrics), "checks": []}) for each in found]
    return EncoderList(encoders=found)


@router.get("/{key}", response_model=EncoderPublic, response_model_exclude_none=True)
def read_encoder(key: str, parts: PartsDep) -> EncoderPublic:
    """By `name@version`; by name alone the newest ready one, with all versions."""
    record = parts.registry.encoders.find(key)
    answer = public(record, parts)
    if parse_key(key)[1] is None:
        versions = [other.version for other in parts.registry.encoders.versions(record.name)]
        answer = answer.model_copy(update={"versions": versions})
    return answer


@router.post(
    "",
    response_model=EncoderPublic,
    status_code=201,
    responses={200: {"model": EncoderPublic, "description": "The same name and digest is already registered"}},
    openapi_extra=one_of_bodies({"application/json": EncoderCreate, FORM: EncoderUpload}),
)
async def register_encoder(request: Request, parts: PartsDep, key: IdempotencyKey = None) -> Response:
    """Register a sentence-transformers folder, what a tuning job made, a name on the hub, or an uploaded archive.

    Sources on the server are named in JSON; an archive (zip, tar or tar.gz of the folder) comes as the file `archive`
    of a form. The checks that ran come back.

        curl -F name=bees -F 'labels={"domain": "beekeeping"}' -F archive=@bees.tar.gz http://127.0.0.1:8000/encoders
    """
    if content_type(request) == FORM:
        async with read_form(request, EncoderUpload, "archive") as (upload, file):
            digest = await run_in_threadpool(_sha256, file)
            source = partial(from_archive, file, parts.artifacts, parts.settings.max_archive_bytes)
            sent = upload.model_dump_json().encode() + digest
            return await once(parts, CALL, key, sent, partial(_register, upload, source, parts))
    body = await read_json(request, EncoderCreate)
    sent = body.model_dump_json().encode()
    return await once(parts, CALL, key, sent, partial(_register, body, partial(_named, body.source, parts), parts))


@router.get(
    "/{key}/archive",
    response_class=StreamingResponse,
    responses={200: {"content": {TAR: {"schema": {"type": "string", "contentMediaType": TAR}}}}},
)
def download_encoder(key: str, parts: PartsDep) -> StreamingResponse:
    """The whole sentence-transformers folder as tar, full weights included: `SentenceTransformer(folder)` loads it."""
    record = parts.registry.encoders.find(key)
    packed = pack_registered(parts.artifacts, record)
    headers = {"Content-Length": str(packed.size), "Content-Disposition": f'attachment; filename="{record.key}.tar"'}
    return StreamingResponse(packed.chunks, media_type=TAR, headers=headers)


@router.delete("/{key}", status_code=204)
def delete_encoder(key: str, parts: PartsDep) -> Response:
    """Delete `name@version`. Refused while it is active, canary, previous, the base, or in use by a job."""
    if parse_key(key)[1] is None:
        raise InvalidField("key", f"{key!r} names no version; DELETE /encoders/{key}@1 deletes one.")
    record = parts.registry.encoders.find(key)
    if record.state is EncoderState.DELETED:
        return Response(status_code=204)
    with parts.switcher.exclusive():  # no activation may slip in between the check and the deletion
        _check_unused(record, parts)
        parts.registry.encoders.delete(record.id)
    parts.pool.drop(record.id)
    parts.artifacts.remove(record.key)
    return Response(status_code=204)


def _check_unused(record: EncoderRecord, parts: Parts) -> None:
    roles = parts.registry.activations.roles()
    if record.key == BASE_KEY:
        raise EncoderInUse(f"{record.key} is the base of the collection and is never deleted.")
    if record.id in roles:
        raise EncoderInUse(f"{record.key} is the {roles[record.id]}; put another in its place first.")
    if jobs := parts.registry.jobs.uses_encoder(record.id):
        use = (
            "the parent of the unfinished tuning job"
            if isinstance(jobs[0], JobRecord)
            else "measured by the evaluation"
        )
        raise EncoderInUse(f"{record.key} is {use} {jobs[0].id}; cancel it first.")


def _register(
    fields: EncoderFields, opened: Callable[[], AbstractContextManager[Source]], parts: Parts, keep: Keep
) -> Answer:
    check_new_name(fields.name)
    with parts.permits.admissions.one(), opened() as source:
        candidate = Candidate(
            name=fields.name,
            source=source.folder,
            source_base=source.base,
            said_source=source.said,
            description=fields.description,
            labels=fields.labels,
            force=fields.force,
        )
        record, new = parts.registrar.register(
            candidate, lambda connection, record, new: keep(connection, _answer(record, new, parts))
        )
    return _answer(record, new, parts)


def _answer(record: EncoderRecord, new: bool, parts: Parts) -> Answer:
    body = public(record, parts).model_dump(mode="json", exclude_none=True)
    return Answer(status=201 if new else 200, body=body, location=f"/encoders/{record.key}")


@contextmanager
def _named(source: EncoderSource, parts: Parts) -> Iterator[Source]:
    if source.path is not None:
        yield from_path(source.path, parts.settings.source_dirs)
    elif source.hub is not None:
        settings = parts.settings
        yield from_hub(source.hub, source.revision, enabled=settings.hub, max_bytes=settings.max_archive_bytes)
    else:
        yield from_job(source.job or "", parts.registry, parts.artifacts)


def _sha256(file: BinaryIO) -> bytes:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


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
