"""What `/experiments` answers."""

from typing import Annotated, Literal

from pydantic import Field

from app.wire.active_encoder import CanaryPublic
from app.wire.common import PublicModel

Verdict = Annotated[
    Literal["better", "worse", "undecided", "too-few"],
    Field(description="Of the canary against the active encoder."),
]


class ArmPublic(PublicModel):
    encoder: Annotated[str, Field(description="name@version")]
    requests: Annotated[int, Field(description="Searches, by their first page, whose sender was told apart.")]
    users: Annotated[int, Field(description="How many senders.")]
    clicked: Annotated[int, Field(description="Requests with a click; of an interleaving, on its own hits.")]
    clicks: int
    rate: Annotated[float | None, Field(description="`clicked` of `requests`.")] = None
    wins: Annotated[
        int | None, Field(description="Of an interleaving: requests with more clicks on its hits than on the other's.")
    ] = None


class EffectPublic(PublicModel):
    measure: Annotated[str, Field(description="What is compared, the canary less the active encoder.")]
    estimate: float
    low: Annotated[float, Field(description="Lower end of an interval that holds at all looks together.")]
    high: float
    p_value: Annotated[float, Field(description="Always valid: it may be looked at after every request.")]


class DecidedPublic(PublicModel):
    verdict: Verdict
    requests: int
    at: float
    alpha: Annotated[float, Field(description="How often such a test ever decides where there is no difference.")]


class ExperimentPublic(PublicModel):
    id: Annotated[int, Field(description="The generation that began it.")]
    canary: CanaryPublic
    began_at: float
    ended_at: float | None = None
    ended_by: Annotated[str | None, Field(description="Reason of the generation that ended it.")] = None
    note: Annotated[str | None, Field(description="The rule that ended it, in words.")] = None
    active_arm: ArmPublic
    canary_arm: ArmPublic
    effect: Annotated[EffectPublic | None, Field(description="Absent where too few asked.")] = None
    alpha: float
    verdict: Verdict
    said: Annotated[str, Field(description="The same in words.")]
    decided: Annotated[DecidedPublic | None, Field(description="The first look at which the test decided.")] = None


class ExperimentPage(PublicModel):
    experiments: list[ExperimentPublic]
    next_cursor: str | None = None
