"""What `/evaluations` takes and answers."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from app.wire.common import DatasetSplit, EncoderKey, PublicModel, RequestModel

MAX_ENCODERS = 16
MAX_DATASETS = 64
MAX_REPLAYED = 10_000


class ReplayCreate(RequestModel):
    """Searches of the query log, asked again: the newest ones, first pages alone."""

    since: Annotated[
        float | None, Field(allow_inf_nan=False, description="From this time on, in seconds since 1970.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_REPLAYED, description="How many searches at most.")] = 1_000
    sample: Annotated[
        int,
        Field(ge=0, le=100, description="How many of the largest changes are told, with the words that were asked."),
    ] = 20


class EvaluationCreate(RequestModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"encoders": ["base", "active"], "datasets": ["beekeeping:test", "beekeeping:de"]},
                {"datasets": ["beekeeping"]},
                {"encoders": ["base"], "replay": {"limit": 500}},
            ]
        }
    )

    encoders: Annotated[list[EncoderKey], Field(min_length=1, max_length=MAX_ENCODERS)] = Field(
        default=["base", "active"],
        description="'name@version', 'name' (the newest ready one) or 'active'. The base is measured always: "
        "the others are compared with it.",
    )
    datasets: Annotated[list[DatasetSplit], Field(max_length=MAX_DATASETS)] = Field(
        default=[], description="'dataset' or 'dataset:split'; the split is 'test' if not named."
    )
    replay: ReplayCreate | None = Field(
        None, description="Ask logged queries again; what changes is told against the active encoder."
    )

    @model_validator(mode="after")
    def _says_on_what(self) -> Self:
        if not self.datasets and self.replay is None:
            raise ValueError("datasets: name one at least to measure on, or a replay of logged queries")
        return self


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


class Moved(PublicModel):
    """Means over searches: what another encoder would have answered, against the active one."""

    searches: int
    overlap: Annotated[float, Field(description="Share of the first ten that both answer.")]
    rbo: Annotated[float, Field(description="Rank-biased overlap, persistence 0.9, over the first hundred; 1: same.")]
    first_changed: Annotated[float, Field(description="Share of the searches with another first hit.")]
    churn: Annotated[float, Field(description="By how many ranks the first ten moved, on the average.")]


class Change(PublicModel):
    query: str
    lang: str
    times: Annotated[int, Field(description="How often it was asked among the searches that were asked again.")]
    overlap: float
    rbo: float
    before: Annotated[list[str], Field(description="The active encoder's first ten.")]
    after: list[str]


class Replayed(Moved):
    languages: Annotated[dict[str, Moved], Field(description="Of the searches that named a language.")]
    changes: Annotated[
        list[Change] | None,
        Field(description="The largest ones by rbo; absent for a key without the scope `write`: they tell queries."),
    ] = None
    judged: Annotated[
        Cell | None, Field(description="On the queries that were judged explicitly; the difference is to the active.")
    ] = None


class ReplayResult(PublicModel):
    against: Annotated[str, Field(description="What was active when it was asked for.")]
    searches: int
    queries: Annotated[int, Field(description="Different ones.")]
    left_out: Annotated[
        int,
        Field(
            description="Searches in the modes lexical and hybrid, and those whose filter cannot be served any more, "
            "or is one too many."
        ),
    ]
    judged: Annotated[Cell | None, Field(description="The active encoder on what was judged explicitly.")] = None
    encoders: dict[str, Replayed]


class EvaluationResult(PublicModel):
    datasets: dict[str, MeasuredDataset]
    matrix: Annotated[dict[str, dict[str, Cell]], Field(description="By encoder, the base first, and dataset.")]
    replay: ReplayResult | None = None


class EvaluationPublic(PublicModel):
    id: str
    encoders: list[str]
    datasets: list[str]
    replay: ReplayCreate | None = None
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
