"""What `/judgments` takes and answers."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.plainly import plainly
from app.wire.common import PublicModel, RequestModel
from app.wire.datasets import LineId

MAX_RELEVANCE = 3

Relevance = Annotated[
    int,
    Field(strict=True, ge=0, le=MAX_RELEVANCE, description="0: not relevant; 1 to 3: relevant, more and more."),
    plainly(f"must be an integer from 0 (not relevant) to {MAX_RELEVANCE} (answers it perfectly)"),
]
Lang = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The query's language, as in figures by language."),
    plainly("must be the code of a language, such as 'de' or 'pt-BR'"),
]


class JudgmentCreate(RequestModel):
    query: Annotated[str, Field(min_length=1, description="As it was asked; runs of white space count as one space.")]
    passage_id: Annotated[LineId, Field(description="Of a passage that is stored.")]
    relevance: Relevance
    lang: Lang | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "what chewed grass into my bottom combs over winter", "passage_id": "en-020", "relevance": 3},
                {
                    "query": "wozu das senkrechte Brett neben den Waben",
                    "passage_id": "de-001",
                    "relevance": 0,
                    "lang": "de",
                },
            ]
        }
    )


class JudgmentPublic(PublicModel):
    id: Annotated[str, Field(description="Of the query and the passage: judged again they keep it.")]
    query: str
    passage_id: str
    relevance: int
    lang: str | None = None
    first_judged_at: Annotated[float, Field(description="By it the dataset is split.")]
    judged_at: float


class JudgmentPage(PublicModel):
    judgments: list[JudgmentPublic]
    count: Annotated[int, Field(description="How many there are in all, or of the query and language that were named.")]
    languages: Annotated[
        dict[str, int],
        Field(default_factory=dict, description='How many of each language, whichever was named; "": those of none.'),
    ]
    next_cursor: str | None = None
