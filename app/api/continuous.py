"""`/continuous-tuning`: the standing order to tune on what users judge and click, and what was done by it."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from app.api.active_encoder import check_told_apart
from app.api.deps import Parts, PartsDep
from app.api.queries import check_new_name, sequence_cursor
from app.api.scopes import Scoped
from app.errors import InvalidField
from app.judgments import DEV, TRAIN
from app.judgments import NAME as JUDGMENTS
from app.registry import Standing, Step, StepKind
from app.rounds import in_words
from app.tuning import HINT, check_guards, splits_of
from app.wire.continuous import ContinuousHistory, ContinuousPublic, ContinuousStep, ContinuousTuning

router = APIRouter(prefix="/continuous-tuning", tags=["continuous tuning"], route_class=Scoped)


@router.get("", response_model=ContinuousPublic)
def read_continuous_tuning(parts: PartsDep) -> ContinuousPublic:
    """The order, what the round under way is at, and what is done next, with the reason. Reading begins nothing."""
    return _public(parts)


@router.put("", response_model=ContinuousPublic)
def set_continuous_tuning(body: ContinuousTuning, parts: PartsDep) -> ContinuousPublic:
    """Set the one standing order, in place of the one before.

    From then on the service by itself begins a tuning on the dataset `judgments` where one is due, with these guards
    and this gate; what passes is tried as a canary and promoted or discarded by the test on clicks, within `max_hours`.
    What the gate rejects never becomes active. While another experiment runs no round begins; a switch that somebody
    else makes while one is under way ends it. So does another order: its tuning is cancelled, its canary ended. The
    same order again changes nothing. An interrupted tuning is taken up again, five times at most.
    """
    check_new_name(body.name)
    check_guards(body.guards)
    _check_splits(body.guards, parts)
    if body.canary is not None:
        check_told_apart(body.canary, parts)
        if parts.settings.query_log == 0:
            raise InvalidField(
                "canary",
                "is decided by clicks, and this service keeps no query log to count them: set ADIABAT_QUERY_LOG, or "
                "send null, so that the gate is enough.",
            )
    parts.registry.continuous.set(body.model_dump(mode="json"), in_words(body))
    return _public(parts)


@router.delete("", status_code=204)
def remove_continuous_tuning(parts: PartsDep) -> Response:
    """Take the order back; a round that is under way is discarded. The history stays."""
    parts.registry.continuous.remove("The order was taken back.")
    return Response(status_code=204)


@router.get("/history", response_model=ContinuousHistory)
def read_continuous_history(
    parts: PartsDep, cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> ContinuousHistory:
    """Every step of every order and round, newest first; `next_cursor` is absent on the last page."""
    found = parts.registry.continuous.page(limit + 1, before=sequence_cursor(cursor))
    page = found[:limit]
    return ContinuousHistory(
        steps=[_step(each) for each in page],
        next_cursor=str(page[-1].sequence) if len(found) > limit else None,
    )


def _check_splits(guards: list[str], parts: Parts) -> None:
    """Raises `DatasetNotFound`, `BadDataset`, `InvalidField`. What `judgments` holds by then nobody knows yet."""
    wanted = splits_of(guards)
    for _, split in (each for each in wanted if each[0] == JUDGMENTS):
        if split not in (TRAIN, DEV):
            raise InvalidField("guards", f"'{JUDGMENTS}' has no split {split!r} but '{TRAIN}' and '{DEV}'.")
    parts.registry.datasets.with_splits([each for each in wanted if each[0] != JUDGMENTS], HINT)


def _public(parts: Parts) -> ContinuousPublic:
    seen = parts.continuous.view()
    last = next(iter(parts.registry.continuous.page(1)), None)
    return ContinuousPublic(
        order=seen.order,
        set_at=seen.standing.order.at if seen.standing.order else None,
        state=_state(seen.standing),
        next_step=seen.next.kind,
        said=seen.next.said,
        new_judgments=seen.new_judgments,
        last=_step(last) if last else None,
    )


def _state(standing: Standing) -> Literal["off", "waiting", "tuning", "canary"]:
    if standing.round is not None:
        return "canary" if standing.round.kind is StepKind.CANARY else "tuning"
    return "waiting" if standing.order is not None else "off"


def _step(step: Step) -> ContinuousStep:
    told = {name: value for name, value in asdict(step).items() if name in ContinuousStep.model_fields}
    return ContinuousStep(**told)
