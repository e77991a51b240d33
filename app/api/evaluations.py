"""`/evaluations`: measure encoders on datasets, list, read, cancel, resume."""

from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.deps import Parts, PartsDep
from app.api.idempotency import IdempotencyKey, once
from app.api.listing import Limit, Offset
from app.api.scopes import SCOPES, Scoped, holder_of
from app.encoders.artifacts import BASE_KEY
from app.errors import Conflict
from app.registry import Answer, EncoderRecord, EncoderState, EvaluationRecord, Keep, NewEvaluation
from app.wire.evaluations import EvaluationCreate, EvaluationList, EvaluationPublic, ReplayCreate

ACTIVE = "active"
SPLIT = "test"
HINT = "A dataset is named 'dataset' (split 'test') or 'dataset:split'."

router = APIRouter(prefix="/evaluations", tags=["evaluations"], route_class=Scoped)


@router.post("", response_model=EvaluationPublic, status_code=202, response_model_exclude_none=True)
async def create_evaluation(body: EvaluationCreate, parts: PartsDep, key: IdempotencyKey = None) -> Response:
    """Measure encoders on datasets, in the trainer's process, over exact vectors.

    A dataset without a corpus is searched among the stored passages as they are when the evaluation is prepared, one
    with a corpus on its own. Judgments whose passage is gone are listed and count as no misses.

    With `replay`, searches of the query log are asked again, with their filters: how much each encoder's answers differ
    from those of the active one, by language too, and on the queries that were judged explicitly, which are better.
    """
    return await once(parts, "POST /evaluations", key, body.model_dump_json().encode(), partial(_create, body, parts))


@router.get("", response_model=EvaluationList, response_model_exclude_none=True)
def list_evaluations(parts: PartsDep, limit: Limit = None, offset: Offset = 0) -> EvaluationList:
    """Newest first, without what they found: that is in `GET /evaluations/{evaluation_id}`."""
    found = [replace(each, result=None) for each in parts.registry.jobs.evaluations(limit, offset)]
    return EvaluationList(evaluations=[_public(each, parts) for each in found])


@router.get("/{evaluation_id}", response_model=EvaluationPublic, response_model_exclude_none=True)
def read_evaluation(evaluation_id: str, parts: PartsDep, request: Request) -> EvaluationPublic:
    """How it stands; once it has succeeded, the matrix."""
    found = _public(parts.registry.jobs.evaluation(evaluation_id), parts)
    holder = holder_of(request.scope)
    if found.result and found.result.replay and not (holder and holder.scope.covers(SCOPES["GET /queries"])):
        for each in found.result.replay.encoders.values():
            each.changes = None
    return found


@router.post(
    "/{evaluation_id}/cancel", response_model=EvaluationPublic, status_code=202, response_model_exclude_none=True
)
def cancel_evaluation(evaluation_id: str, parts: PartsDep) -> EvaluationPublic:
    """Ask it to stop; an interrupted one is given up."""
    parts.registry.jobs.evaluation(evaluation_id)  # a tuning is none
    parts.registry.jobs.cancel(evaluation_id)
    return _public(parts.registry.jobs.evaluation(evaluation_id), parts)


@router.post(
    "/{evaluation_id}/resume", response_model=EvaluationPublic, status_code=202, response_model_exclude_none=True
)
def resume_evaluation(evaluation_id: str, parts: PartsDep) -> EvaluationPublic:
    """Put an interrupted one back into the queue: it is measured from the start; corpora stay embedded."""
    for encoder_id in parts.registry.jobs.evaluation(evaluation_id).encoder_ids:
        _usable(parts.registry.encoders.by_id(encoder_id))
    parts.registry.jobs.resume(evaluation_id)
    resumed = _public(parts.registry.jobs.evaluation(evaluation_id), parts)
    parts.jobs.wake()
    return resumed


def _create(body: EvaluationCreate, parts: Parts, keep: Keep) -> Answer:
    wanted = list(
        dict.fromkeys((name, split or SPLIT) for name, _, split in (each.partition(":") for each in body.datasets))
    )
    named, replay = body.encoders, None
    if body.replay is not None:
        named = [*named, ACTIVE]
        replay = _replay(body.replay, parts)
    with parts.datasets.held(wanted):
        records = parts.datasets.fixed(wanted, HINT)
        evaluation = parts.registry.jobs.add_evaluation(
            NewEvaluation(
                encoder_ids=[record.id for record in _encoders(named, parts)],
                datasets=[f"{name}:{split}" for name, split in wanted],
                dataset_digests={record.name: record.digest for record in records},
                reads_store=replay is not None or any(record.counts["passages"] is None for record in records),
                replay=replay,
            ),
            lambda connection, queued: keep(connection, _answer(queued, parts)),
        )
    parts.jobs.wake()
    return _answer(evaluation, parts)


def _replay(wanted: ReplayCreate, parts: Parts) -> dict[str, Any]:
    """What it compares with is fixed here, and so kept. Raises `Conflict` where there is nothing to ask again."""
    parts.query_log.flush()
    if not parts.registry.queries.page(1, since=wanted.since, first_pages=True):
        raise Conflict(
            "The query log holds no search to ask again, or none since then: ADIABAT_QUERY_LOG says which share of the "
            f"searches is kept, and here it is {parts.query_log.share:g}."
        )
    return wanted.model_dump() | {"against_id": parts.slot.current.encoder.record.id}


def _answer(evaluation: EvaluationRecord, parts: Parts) -> Answer:
    said = _public(evaluation, parts).model_dump(mode="json", exclude_none=True)
    return Answer(status=202, body=said, location=f"/evaluations/{evaluation.id}")


def _encoders(keys: list[str], parts: Parts) -> list[EncoderRecord]:
    """What the keys mean now, each once, the base before all."""
    found = [parts.registry.encoders.find(BASE_KEY)]
    for key in keys:
        record = parts.slot.current.encoder.record if key == ACTIVE else parts.registry.encoders.find(key)
        found.append(_usable(record))
    return list({record.id: record for record in found}.values())


def _usable(record: EncoderRecord) -> EncoderRecord:
    if record.state in (EncoderState.DELETED, EncoderState.BROKEN):
        raise Conflict(f"The encoder {record.key} is {record.state} and cannot be measured.")
    return record


def _public(evaluation: EvaluationRecord, parts: Parts) -> EvaluationPublic:
    return EvaluationPublic(
        id=evaluation.id,
        encoders=[parts.registry.encoders.by_id(encoder_id).key for encoder_id in evaluation.encoder_ids],
        datasets=evaluation.datasets,
        replay=evaluation.replay
        and ReplayCreate.model_validate(
            {name: value for name, value in evaluation.replay.items() if name != "against_id"}
        ),
        status=evaluation.status.shown,
        progress=evaluation.progress,
        result=evaluation.result,
        reason=evaluation.reason,
        created_at=evaluation.created_at,
        started_at=evaluation.started_at,
        finished_at=evaluation.finished_at,
    )
