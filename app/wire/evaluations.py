"""What `/evaluations` takes and answers."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.wire.common import DatasetSplit, EncoderKey, PublicModel, RequestModel

MAX_ENCODERS = 16
MAX_DATASETS = 64


class EvaluationCreate(RequestModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"encoders": ["base", "active"], "datasets": ["beekeeping:test", "beekeeping:de"]},
                {"datasets": ["beekeeping"]},
            ]
        }
    )

    encoders: Annotated[list[EncoderKey], Field(min_length=1, max_length=MAX_ENCODERS)] = Field(
        default=["base", "active"],
        description="'name@version', 'name' (the newest ready one) or 'active'. The base is measured always: "
        "the others are compared with it.",
    )
    datasets: Annotated[list[DatasetSplit], Field(min_length=1, max_length=MAX_DATASETS)] = Field(
        description="'dataset' or 'dataset:split'; the split is 'test' if not named."
    )


class Difference(PublicModel):
    """MRR@10 of an encoder less that of the base, over the same queries."""

    change: float
    low: Annotated[float, Field(description="95% interval, from here ...")]
    high: Annotated[float, Field(description="... to here.")]
    p: Annotated[
        float, Field(description="Two-sided, by flipping signs; queries with a passage in common go together.")
    ]
    p_holm: Annotated[
        float | None,
        Field(description="The same after Holm, over the datasets of the encoder; of a whole dataset only."),
    ] = None


class Figures(PublicModel):
    """Means over the queries; retrieval is exact."""

    queries: int
    mrr: Annotated[float, Field(description="MRR@10.")]
    ndcg: Annotated[float, Field(description="nDCG@10.")]
    recall_10: Annotated[float, Field(description="Recall@10.")]
    recall_100: Annotated[float, Field(description="Recall@100.")]
    triplets: Annotated[
        float,
        Field(description="Share of all (query, relevant passage, other passage) in which the relevant one is nearer."),
    ]
    difference: Annotated[Difference | None, Field(description="To the base; not of the base itself.")] = None


class Cell(Figures):
    languages: Annotated[
        dict[str, Figures], Field(description="The queries of each language that the dataset's queries name.")
    ]
    drift: Annotated[
        float | None, Field(description="Mean of 1 - cos between the base's vector of a query and this one's.")
    ] = None


class MissingPassages(PublicModel):
    """Judgments that name a passage which is not there: left out, and no misses."""

    judgments: int
    ids: Annotated[list[str], Field(description="The first of these passages.")]
    queries: Annotated[int, Field(description="Queries left out, since all their passages are missing.")]


class MeasuredDataset(PublicModel):
    queries: Annotated[int, Field(description="That were measured; with 0 the dataset is not in the matrix.")]
    passages: Annotated[int, Field(description="That were searched.")]
    own_corpus: Annotated[bool, Field(description="Whether they are the dataset's own, or the stored ones.")]
    missing: MissingPassages


class EvaluationResult(PublicModel):
    datasets: dict[str, MeasuredDataset]
    matrix: Annotated[dict[str, dict[str, Cell]], Field(description="By encoder, the base first, and dataset.")]


class EvaluationPublic(PublicModel):
    id: str
    encoders: list[str]
    datasets: list[str]
    status: Annotated[
        str, Field(description="queued, preparing, running, succeeded, failed, cancelling, cancelled or interrupted")
    ]
    progress: dict[str, Any]
    result: EvaluationResult | None = None
    reason: str | None = None
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


class EvaluationList(PublicModel):
    evaluations: list[EvaluationPublic]
