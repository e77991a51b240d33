"""What `/feedback` takes and answers, and `/queries` answers."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from app.plainly import plainly
from app.wire.common import PublicModel, RequestModel
from app.wire.datasets import LineId
from app.wire.search import MAX_LIMIT, MAX_OFFSET

MAX_CLICKS = 100

SearchId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{32}$"),
    plainly("must be the search_id of an answer to /search: 32 of 0-9 and a-f"),
]


class ClickCreate(RequestModel):
    passage_id: LineId
    position: Annotated[
        int, Field(strict=True, ge=1, le=MAX_OFFSET + MAX_LIMIT, description="Its rank, from 1, counted over pages.")
    ]


class FeedbackCreate(RequestModel):
    search_id: SearchId
    clicks: Annotated[list[ClickCreate], Field(min_length=1, max_length=MAX_CLICKS)]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "search_id": "5f0c8a3e9d7b41c2a6e84b1f0d3c9a77",
                    "clicks": [{"passage_id": "en-020", "position": 2}],
                }
            ]
        }
    )


class FeedbackPublic(PublicModel):
    search_id: str
    stored: Annotated[int, Field(description="Clicks that are new.")]
    repeated: Annotated[int, Field(description="Clicks that were known; they count once.")]


class ClickPublic(PublicModel):
    passage_id: str
    position: int
    at: float
    team: Annotated[str | None, Field(description="As of `teams`.")] = None


class SearchLogged(PublicModel):
    search_id: str
    at: float
    key: Annotated[str | None, Field(description="Whose key asked; absent where the service asks for none.")] = None
    query: str
    lang: str | None = None
    filter: dict[str, Any] | None = None
    encoder: str
    generation: int | None = None
    mode: Annotated[
        str | None, Field(description="As it was asked; absent of a search that was kept before modes were.")
    ] = None
    rule: Annotated[str | None, Field(description="What chose the encoder, as `/search` answered.")] = None
    route: Annotated[str | None, Field(description="The route that took it, where one did.")] = None
    offset: Annotated[int, Field(description="How many hits came before the first of `shown`.")]
    shown: Annotated[list[str], Field(description="Ids of the passages, best first; with `group_by` group by group.")]
    teams: Annotated[
        str | None,
        Field(
            description="Of an interleaved search, for each of the first 100 of `shown`: `a` active, `c` canary, "
            "`=` both would have shown it there."
        ),
    ] = None
    clicks: list[ClickPublic]


class SearchLogPage(PublicModel):
    searches: list[SearchLogged]
    count: Annotated[int, Field(description="How many the query log holds in all.")]
    share: Annotated[float, Field(description="Of the searches, what is kept now (`ADIABAT_QUERY_LOG`).")]
    next_cursor: str | None = None
