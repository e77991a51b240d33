"""What `/datasets` takes and answers."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from app.plainly import plainly
from app.wire.common import HubName, PublicModel, RequestModel, Revision

# Ids end up in tab-separated qrels.
LineId = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=r"^[^\t\r\n]+$"),
    plainly("must be 1 to 512 characters without a tab or line break"),
]
Score = Annotated[float, Field(allow_inf_nan=False)]

EXAMPLE_LINES = """\
{"query": "most common type of beehive used in America", "lang": "en", "split": "train", "relevant": ["en-001"]}
{"query": "what chewed grass into my bottom combs over winter", "split": "dev", "relevant": {"en-020": 2, "en-253": 1}}
{"query": "wozu das senkrechte Brett neben den Waben", "lang": "de", "split": "de", "relevant": ["de-001"]}
"""

# The same as files in BEIR shape.
EXAMPLE_FILES = {
    "queries.jsonl": """\
{"_id": "q1", "text": "most common type of beehive used in America", "metadata": {"lang": "en"}}
{"_id": "q2", "text": "what chewed grass into my bottom combs over winter"}
{"_id": "q3", "text": "wozu das senkrechte Brett neben den Waben", "metadata": {"lang": "de"}}
""",
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq1\ten-001\t1\n",
    "qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq2\ten-020\t2\nq2\ten-253\t1\n",
    "qrels/de.tsv": "query-id\tcorpus-id\tscore\nq3\tde-001\t1\n",
}


class QueryLine(RequestModel):
    """A line of NDJSON: a query and the passages that answer it."""

    query: Annotated[str, Field(min_length=1)]
    relevant: Annotated[
        list[LineId] | dict[LineId, Score],
        Field(description="Passage ids, or id: score."),
        plainly("must be a list of passage ids (without tab or line break), or an object of id: score"),
    ]
    id: Annotated[LineId | None, Field(description="Without it: q and the number of the line.")] = None
    lang: str = ""
    split: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$"), plainly("must be 1 to 64 letters, digits, '_' and '-'")
    ] = "train"


class PassageLine(RequestModel):
    """A line of NDJSON that gives the dataset its own corpus: it is then searched instead of the stored passages."""

    passage: Annotated[str, Field(min_length=1, description="The text.")]
    id: LineId
    title: str = ""


class DatasetSource(RequestModel):
    """A dataset on the hub in BEIR shape, where ADIABAT_HUB allows it; the revisions are the newest without a name."""

    hub: HubName
    revision: Revision | None = Field(None, description="A branch, tag or commit.")
    qrels: HubName | None = Field(None, description="A second repository, where that one has the judgments.")
    qrels_revision: Revision | None = Field(None, description="A branch, tag or commit of that.")
    corpus: bool = Field(
        True, description="Whether its own corpus, if it has one, is wanted; else stored passages are."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"hub": "BeIR/scifact", "qrels": "BeIR/scifact-qrels"}]})

    @model_validator(mode="after")
    def _revision_of_something(self) -> "DatasetSource":
        if self.qrels_revision is not None and self.qrels is None:
            raise ValueError("'qrels_revision' goes with 'qrels'")
        return self


class SplitPublic(PublicModel):
    queries: int
    pairs: int
    languages: dict[str, int] = Field(default_factory=dict)


class UnknownPassages(PublicModel):
    """Passages that judgments name and that are not stored now: they cannot be found, nor learned from."""

    count: int
    ids: Annotated[list[str], Field(description="The first of them.")]


class DatasetPublic(PublicModel):
    name: str
    digest: str
    queries: int
    passages: Annotated[int | None, Field(description="Size of its own corpus; null: over the stored passages.")]
    languages: dict[str, int]
    splits: dict[str, SplitPublic]
    created_at: Annotated[float, Field(description="When it was put there; of `judgments` the newest one's time.")]
    source: Annotated[str | None, Field(description="Of what came from the hub: names and commits.")] = None
    unknown_passages: Annotated[
        UnknownPassages | None,
        Field(description="For a dataset over the stored passages, as they are now; not in the list."),
    ] = None


class DatasetList(PublicModel):
    datasets: list[DatasetPublic]
