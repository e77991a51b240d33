"""`/experiments`: what a canary's users clicked, against those of the active encoder."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.api.active_encoder import canary_public
from app.api.deps import Parts, PartsDep
from app.api.queries import sequence_cursor
from app.api.scopes import Scoped
from app.experiments import alpha_of, counted, finding
from app.registry import ExperimentRecord
from app.registry.experiments import Arm
from app.sequential import Effect
from app.verdicts import rate
from app.wire.experiments import ArmPublic, DecidedPublic, EffectPublic, ExperimentPage, ExperimentPublic

SHARE = "share of requests with a click"
WINS = "wins less losses, of the requests that either won"

router = APIRouter(prefix="/experiments", tags=["experiments"], route_class=Scoped)


@router.get("", response_model=ExperimentPage, response_model_exclude_none=True)
def list_experiments(
    parts: PartsDep, cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> ExperimentPage:
    """Every generation with a canary is an experiment. Newest first; `next_cursor` is absent on the last page."""
    parts.query_log.flush()
    found = parts.registry.experiments.page(limit + 1, before=sequence_cursor(cursor))
    page = found[:limit]
    return ExperimentPage(
        experiments=[_public(each, parts) for each in page],
        next_cursor=str(page[-1].began.generation) if len(found) > limit else None,
    )


@router.get("/{generation}", response_model=ExperimentPublic, response_model_exclude_none=True)
def read_experiment(generation: Annotated[int, Path(ge=1, le=2**31 - 1)], parts: PartsDep) -> ExperimentPublic:
    """What was asked and clicked of each encoder, their difference with an interval, and a verdict in words.

    It is counted from the query log: of the searches that are kept there (`ADIABAT_QUERY_LOG`), those whose sender
    could be told apart. The test may be looked at after every request and be believed as soon as it decides: where
    there is no difference, it ever does so in `alpha` of the cases at most.
    """
    parts.query_log.flush()
    return _public(parts.registry.experiments.find(generation), parts)


def _public(record: ExperimentRecord, parts: Parts) -> ExperimentPublic:
    tally = counted(parts.registry, record)
    found, alpha = finding(record, tally), alpha_of(record)
    canary = canary_public(record.began.canary)
    assert canary is not None  # what makes it an experiment
    return ExperimentPublic(
        id=record.began.generation,
        canary=canary,
        began_at=record.began.at,
        ended_at=record.ended.at if record.ended else None,
        ended_by=record.ended.reason if record.ended else None,
        note=record.ended.note if record.ended else None,
        active_arm=_arm(record.began.encoder, tally.active, tally.interleaved),
        canary_arm=_arm(canary.encoder, tally.canary, tally.interleaved),
        effect=_effect(found.effect, alpha, tally.interleaved) if found.effect else None,
        alpha=alpha,
        verdict=found.verdict,
        said=found.said,
        decided=DecidedPublic(**asdict(record.decided)) if record.decided else None,
    )


def _arm(encoder: str, arm: Arm, interleaved: bool) -> ArmPublic:
    return ArmPublic(
        encoder=encoder,
        requests=arm.requests,
        users=arm.users,
        clicked=arm.clicked,
        clicks=arm.clicks,
        rate=rate(arm) if arm.requests else None,
        wins=arm.wins if interleaved else None,
    )


def _effect(effect: Effect, alpha: float, interleaved: bool) -> EffectPublic:
    low, high = effect.interval(alpha)
    return EffectPublic(
        measure=WINS if interleaved else SHARE,
        estimate=effect.estimate,
        low=low,
        high=high,
        p_value=effect.p_value,
    )
