"""`/tuning-jobs`: create, list, read, cancel, resume, follow."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.api.deps import MAX_DIGITS, Parts, PartsDep
from app.api.idempotency import IdempotencyKey, once
from app.api.listing import Brief, Limit, Offset, briefly
from app.api.queries import check_new_name
from app.api.scopes import ADMIN, Scoped, check_scope, holder_of
from app.api.watching import watching
from app.registry import Answer, JobRecord, Keep
from app.tuning import queue_tuning, usable
from app.wire.tuning_jobs import JobEncoder, TuningJobCreate, TuningJobList, TuningJobPublic

NEVER = "never"
EVENT_EXAMPLE = """\
id: 7
event: progress
data: {"sequence":7,"at":1767225600.0,"kind":"progress","data":{"phase":"tuning","step":40,"steps":120}}
"""
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The events", "content": {"text/event-stream": {"example": EVENT_EXAMPLE}}},
    204: {"description": "The job has ended and nothing is left to tell: do not come back"},
}

router = APIRouter(prefix="/tuning-jobs", tags=["tuning"], route_class=Scoped)


@router.post("", response_model=TuningJobPublic, status_code=202, response_model_exclude_none=True)
async def create_tuning_job(
    request: Request, body: TuningJobCreate, parts: PartsDep, key: IdempotencyKey = None
) -> Response:
    """Queue a tuning. It runs in the trainer's process; this service goes on answering.

    One that is to be switched to (`activate`) asks for the scope `admin`, as every switch does.
    """
    if body.activate != NEVER:
        check_scope(holder_of(request.scope), ADMIN, f"A tuning with activate {body.activate!r}")
    return await once(parts, "POST /tuning-jobs", key, body.model_dump_json().encode(), partial(_create, body, parts))


@router.get("", response_model=TuningJobList, response_model_exclude_none=True)
def list_tuning_jobs(parts: PartsDep, limit: Limit = None, offset: Offset = 0, brief: Brief = False) -> TuningJobList:
    """Newest first, their results without the `search` and the `looks`, which reading one job shows."""
    jobs = [_public(job, parts) for job in parts.registry.jobs.all(limit, offset)]
    for job in jobs:
        for left_out in ("search", "looks"):
            (job.result or {}).pop(left_out, None)
    if brief:
        jobs = [job.model_copy(update={"result": job.result and briefly(job.result)}) for job in jobs]
    return TuningJobList(tuning_jobs=jobs)


@router.get("/{job_id}", response_model=TuningJobPublic, response_model_exclude_none=True)
def read_tuning_job(job_id: str, parts: PartsDep) -> TuningJobPublic:
    return _public(parts.registry.jobs.get(job_id), parts)


@router.post("/{job_id}/cancel", response_model=TuningJobPublic, status_code=202, response_model_exclude_none=True)
def cancel_tuning_job(job_id: str, parts: PartsDep) -> TuningJobPublic:
    """Ask the job to stop. It ends within one step and leaves no encoder; an interrupted one is given up."""
    parts.registry.jobs.get(job_id)  # an evaluation is none
    parts.registry.jobs.cancel(job_id)
    return _public(parts.registry.jobs.get(job_id), parts)


@router.post("/{job_id}/resume", response_model=TuningJobPublic, status_code=202, response_model_exclude_none=True)
def resume_tuning_job(job_id: str, parts: PartsDep) -> TuningJobPublic:
    """Put an interrupted job back into the queue: it goes on from its last checkpoint, as if it had never stopped.

    A job is interrupted when its trainer is stopped or dies, or when the disk is full. Its checkpoints are kept for a
    week; after that it starts over. A failed or cancelled job is not resumed: start another with the same body.
    """
    job = parts.registry.jobs.get(job_id)
    usable(parts.registry.encoders.by_id(job.parent_id))
    parts.registry.jobs.resume(job_id)
    resumed = _public(parts.registry.jobs.get(job_id), parts)
    parts.jobs.wake()
    return resumed


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=EVENTS)
async def follow_tuning_job(
    job_id: str,
    parts: PartsDep,
    after: Annotated[int, Query(ge=0, lt=10**MAX_DIGITS, description="Leave out events up to this number.")] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, lt=10**MAX_DIGITS, description="The same; it wins.")] = None,
) -> Response:
    """All that happened to the job and then what happens, as server-sent events, until it has ended.

    `id` is the number of the event within the job: a follower that lost the connection goes on after it. `data` is
    `{sequence, at, kind, data}`, and by `kind` the inner `data` is: `status` and `end` `{status, reason?, encoder?}`
    (only a resumed job goes on after an `end`), `progress` `{phase, step?, steps?, eta_s?, loss?}`, `measured`
    `{when: before|parent|during|after, half: choose|prove, dev, guards, step?, drift?}` in MRR@10, `log` `{message}`.
    A comment every 15 s says that the job is silent.
    """
    start = after if last_event_id is None else last_event_id
    job = await watching(lambda: parts.registry.jobs.get(job_id))
    if job.finished and not await watching(lambda: parts.registry.events.after(job_id, start, 1)):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(parts.events.follow(job_id, start), media_type="text/event-stream", headers=headers)


def _create(body: TuningJobCreate, parts: Parts, keep: Keep) -> Answer:
    check_new_name(body.name)
    job = queue_tuning(
        body, parts.registry, parts.datasets, lambda connection, queued: keep(connection, _answer(queued, parts))
    )
    parts.jobs.wake()
    return _answer(job, parts)


def _answer(job: JobRecord, parts: Parts) -> Answer:
    said = _public(job, parts).model_dump(mode="json", exclude_none=True)
    return Answer(status=202, body=said, location=f"/tuning-jobs/{job.id}")


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
        status=job.status.shown,
        progress=job.progress,
        encoder=JobEncoder(name=encoder.name, version=encoder.version) if encoder else None,
        result=job.result,
        reason=job.reason,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
