"""What `/continuous-tuning` takes and answers."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.recipe import Gate, Recipe
from app.wire.active_encoder import CanaryTerms
from app.wire.common import DatasetSplit, Name, PublicModel, RequestModel

Hours = Annotated[float, Field(ge=0.01, le=24 * 366, allow_inf_nan=False)]


class ContinuousCanary(CanaryTerms):
    """How an encoder that passed its gate is tried, and how long."""

    max_loss: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="It is promoted as soon as the test rules out that it loses more than this: of the share of "
            "searches with a click, or, interleaved, of its wins less its losses. 0: as soon as it is better.",
        ),
    ] = 0.0
    max_hours: Annotated[Hours, Field(description="After so long without a decision it is discarded.")] = 14 * 24


class ContinuousTuning(RequestModel):
    """A standing order: when to tune on the dataset `judgments`, and what becomes of the encoder."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "learned",
                    "every_hours": 168,
                    "min_new_judgments": 200,
                    "guards": ["beekeeping:de"],
                    "gate": {"max_guard_loss": 0.05},
                    "canary": {"percent": 10, "sticky_by": "X-User-Id", "max_hours": 336},
                    "on_success": "promote",
                },
                {"name": "learned", "min_new_judgments": 200, "dry_run": True},
            ]
        }
    )

    name: Annotated[Name, Field(description="Of the encoder; each round that makes one makes its next version.")]
    every_hours: Annotated[
        Hours | None, Field(description="A round begins when the last one began so long ago, and something is new.")
    ] = None
    min_new_judgments: Annotated[
        int | None,
        Field(
            ge=1,
            le=10**9,
            description="... or when so many pairs of a query and a passage were judged for the first time since, by "
            "POST /judgments or by clicks.",
        ),
    ] = None
    recipe: Recipe = Field(default_factory=Recipe)
    guards: Annotated[list[DatasetSplit], Field(max_length=32)] = Field(
        default_factory=list, description="As of a tuning job."
    )
    gate: Gate = Field(default_factory=Gate)
    canary: Annotated[
        ContinuousCanary | None, Field(description="How it is tried before it is promoted; null: its gate is enough.")
    ] = None
    on_success: Annotated[
        Literal["hold", "promote"],
        Field(description="hold: leave the last step to a person; a canary goes on till then. promote: activate it."),
    ] = "hold"
    dry_run: Annotated[bool, Field(description="Begin nothing, and tell in the history what would have begun.")] = False

    @model_validator(mode="after")
    def _begins_some_time(self) -> Self:
        if self.every_hours is None and self.min_new_judgments is None:
            raise ValueError("nothing says when to tune: send every_hours, min_new_judgments, or both")
        return self


class ContinuousStep(PublicModel):
    """One step of the order or of a round; `said` tells why."""

    sequence: int
    at: float
    kind: Annotated[
        str,
        Field(description="set, removed; started, resumed, canary; promoted, held, discarded or dry-run end a round"),
    ]
    said: str
    terms: Annotated[dict[str, Any] | None, Field(description="Of `set`: the order.")] = None
    job_id: str | None = None
    encoder: Annotated[str | None, Field(description="name@version")] = None
    generation: Annotated[
        int | None, Field(description="That the step made, or that was active when the round came to it.")
    ] = None


class ContinuousHistory(PublicModel):
    steps: list[ContinuousStep]
    next_cursor: str | None = None


class ContinuousPublic(PublicModel):
    order: Annotated[ContinuousTuning | None, Field(description="Null: there is none.")] = None
    set_at: float | None = None
    state: Annotated[
        Literal["off", "waiting", "tuning", "canary"], Field(description="What the round under way is at, if one is.")
    ]
    next_step: Annotated[
        str | None, Field(description="Kind of the step that is taken within seconds; null: it waits.")
    ] = None
    said: Annotated[str, Field(description="Why, or what it waits for.")]
    new_judgments: Annotated[
        int | None,
        Field(description="Pairs that were first judged since the last round began; absent while one is under way."),
    ] = None
    last: Annotated[ContinuousStep | None, Field(description="The newest step of the history.")] = None
