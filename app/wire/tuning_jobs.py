"""What `/tuning-jobs` takes and answers."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.recipe import Gate, Recipe
from app.wire.common import DatasetSplit, EncoderKey, Name, PublicModel, RequestModel


class TuningJobCreate(RequestModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "bees",
                    "dataset": "beekeeping",
                    "guards": ["beekeeping:de"],
                    "recipe": {"epochs": 1},
                    "gate": {"max_guard_loss": 0.1},
                    "activate": "if-gate-passes",
                }
            ]
        }
    )

    name: Annotated[Name, Field(description="The name of the encoder to make; it gets the next version.")]
    parent: EncoderKey = "base"
    dataset: Annotated[Name, Field(description="Splits 'train' and 'dev', over the stored passages.")]
    recipe: Recipe = Field(default_factory=Recipe)
    guards: Annotated[list[DatasetSplit], Field(max_length=32)] = Field(
        default_factory=list, description="'dataset' or 'dataset:split'; the split is 'test' if not named."
    )
    gate: Gate = Field(default_factory=Gate)
    activate: Literal["never", "if-gate-passes"] = "never"


class JobEncoder(PublicModel):
    name: str
    version: int


class TuningJobPublic(PublicModel):
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


class TuningJobList(PublicModel):
    tuning_jobs: list[TuningJobPublic]


class JobEventPublic(PublicModel):
    """One thing that happened to a job; the `data` of a server-sent event.

    `status`: `{status, reason?}`. `progress`: what the job shows as its progress. `measured`: MRR@10 of a half of each
    set, `{when: before | parent | during | after, half: choose | prove, dev, guards}`; `parent` where that is not the
    base; `during` has also `step` and `drift`.
    `log`: `{message}`. `end`: `{status, reason?, encoder?}`; only a resumed job goes on after it.
    """

    sequence: Annotated[int, Field(description="Counts from 1 within the job, without gaps.")]
    at: float
    kind: Annotated[str, Field(description="status, progress, measured, log or end")]
    data: dict[str, Any]
