"""What `/search` and `/search/batch` take and answer."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.wire.common import EncoderKey, EncoderUsed, Metadata, Name, PublicModel, RequestModel
from app.wire.judgments import Lang

MAX_LIMIT = 1000
MAX_OFFSET = 100_000
MAX_QUERIES = 256
MAX_BATCH_HITS = 10_000
GROUP_SIZE = 3
MAX_FIELD_CHARS = 256

Mode = Literal["dense", "lexical", "hybrid"]

How = Annotated[
    Mode,
    Field(
        description="`dense`: by the query encoder's vectors. `lexical`: by words in common (BM25), with stemming and "
        "stopwords of each passage's `metadata.lang`; no encoder has a part. `hybrid`: both, fused by reciprocal "
        "ranks. The last two go to the 500th hit."
    ),
]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="How many hits.")]
Filter = Annotated[dict[str, Any] | None, Field(description="Qdrant's filter JSON; keys address the metadata.")]
Threshold = Annotated[float | None, Field(allow_inf_nan=False, description="Leave out hits that score less.")]
Named = Annotated[
    EncoderKey | None, Field(description="`name` or `name@version` to embed with, whatever is active or routed.")
]
NamedRoute = Annotated[
    Name | None,
    Field(
        description="A route (`PUT /routes/{name}`), which chooses the encoder instead of `encoder`; if neither is "
        "given, the first that matches."
    ),
]
QueryLang = Annotated[
    Lang | None,
    Field(description="The query's language: routes may look at it, and the query log and figures by language do."),
]
Rule = Annotated[
    str,
    Field(
        description="What chose the encoder: `active`, `canary` (it answers a part of the requests), `interleaved` "
        "(with it, the hits of both in turns), `named` (the request did), `route`, or `route-language` (a route, in a "
        "language that stays on the base). By a cursor: what chose that of the first page."
    ),
]
RouteTaken = Annotated[str | None, Field(description="The route that took the request, or the first page of it.")]
Used = Annotated[EncoderUsed, Field(description="The encoder of this request; in mode `lexical` it had no part.")]
Exact = Annotated[bool, Field(description="Compare with every passage instead of asking the index.")]
GroupBy = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=MAX_FIELD_CHARS,
        description="Answer `groups`: passages by the value of this field of their metadata (a text or a whole number, "
        "or a list of them), best group first; `limit` counts groups. A passage without such a value is in none. "
        "They are made of the first 500 hits, in every mode.",
    ),
]
GroupSize = Annotated[
    int | None, Field(ge=1, le=MAX_LIMIT, description=f"How many hits of each group; {GROUP_SIZE} if not given.")
]


class SearchRequest(RequestModel):
    query: Annotated[str, Field(min_length=1)]
    mode: How = "dense"
    limit: Limit = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="Skip this many hits.")] = 0
    cursor: Annotated[
        str | None,
        Field(
            max_length=512,
            description="`next_cursor` of an answer to this same search: the next page, from the encoder and "
            "generation that the first page had, whatever is active now. Instead of `offset`, `encoder` and `route`.",
        ),
    ] = None
    filter: Filter = None
    score_threshold: Threshold = None
    encoder: Named = None
    route: NamedRoute = None
    compare_to: Annotated[
        EncoderKey | None,
        Field(description="Also rank with this encoder: each hit says its rank there, and what was lost is listed."),
    ] = None
    exact: Exact = False
    with_query_vector: bool = False
    explain: Annotated[
        bool,
        Field(description="Each hit says its rank and score by vector, by words, and by the vectors of `base`."),
    ] = False
    highlight: Annotated[
        bool,
        Field(description="Each hit says where in its text the query's words are, by the rules of its language."),
    ] = False
    lang: QueryLang = None
    group_by: GroupBy = None
    group_size: GroupSize = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "bees hanging off the front of the hive on a hot evening"},
                {
                    "query": "Wie halte ich Bienen ruhig?",
                    "limit": 5,
                    "filter": {"must": [{"key": "lang", "match": {"value": "de"}}]},
                },
                {"query": "when do I take the honey off", "compare_to": "base", "limit": 3},
                {"query": "Varroa threshold in August", "mode": "hybrid", "explain": True, "limit": 3},
                {"query": "when do I take the honey off", "group_by": "lang", "group_size": 2, "limit": 3},
            ]
        }
    )


class HitPublic(PublicModel):
    id: str
    score: float
    title: str
    text: str
    metadata: Metadata


class Place(PublicModel):
    rank: Annotated[int, Field(description="From 1.")]
    score: float


class HitExplained(PublicModel):
    """Where a hit lies by each of the rankings; absent where it is not among their first `explained.depth`."""

    dense: Annotated[Place | None, Field(description="By the vectors of the encoder that answered.")] = None
    lexical: Annotated[Place | None, Field(description="By the words it shares with the query.")] = None
    base: Annotated[Place | None, Field(description="By the vectors of `base`: what tuning changed.")] = None


class RankedHit(HitPublic):
    compared_rank: Annotated[
        int | None, Field(description="Its rank with the other encoder, from 1; absent where it is not among those.")
    ] = None
    new: Annotated[bool | None, Field(description="The other encoder would not have answered it.")] = None
    explain: HitExplained | None = None
    highlights: Annotated[
        list[tuple[int, int]] | None,
        Field(description="[start, end) in characters (code points) of `text`; none in scripts without spaces."),
    ] = None


class LostHit(HitPublic):
    compared_rank: int


class Took(PublicModel):
    encode: float
    search: float
    total: float


class Comparison(PublicModel):
    encoder: EncoderUsed
    depth: Annotated[int, Field(description="How many of the other encoder's hits were looked at.")]
    lost: Annotated[
        list[LostHit], Field(description="What the other encoder would have answered and this one does not.")
    ]


class Explained(PublicModel):
    depth: Annotated[int, Field(description="How many hits of each ranking were looked at.")]
    base: EncoderUsed
    lexical: Annotated[bool, Field(description="Whether the collection keeps words to search.")]


class HitGroup(PublicModel):
    id: Annotated[str | int, Field(description="What these hits have in the field `group_by`.")]
    hits: list[RankedHit]


class SearchResponse(PublicModel):
    search_id: Annotated[str, Field(description="By it `POST /feedback` says what of this answer was clicked.")]
    hits: Annotated[list[RankedHit], Field(description="Empty with `group_by`: each hit is in its groups.")]
    groups: list[HitGroup] | None = None
    grouped_from: Annotated[
        int | None, Field(description="Of how many hits the groups were made; where it is 500, there may be more.")
    ] = None
    mode: Mode = "dense"
    encoder: Used
    rule: Rule
    route: RouteTaken = None
    took_ms: Took
    next_cursor: Annotated[
        str | None, Field(description="Leads to the next page; absent on the last and past offset 100,000.")
    ] = None
    compared_to: Comparison | None = None
    explained: Explained | None = None
    interleaved_with: Annotated[
        EncoderUsed | None, Field(description="The canary, where hits of both are in this answer.")
    ] = None
    query_vector: list[float] | None = None


class SearchBatchRequest(RequestModel):
    queries: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_QUERIES)]
    mode: How = "dense"
    limit: Limit = 10
    filter: Filter = None
    score_threshold: Threshold = None
    encoder: Named = None
    route: NamedRoute = None
    lang: QueryLang = None
    exact: Exact = False
    with_query_vector: bool = False

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"queries": ["what is a queen excluder for", "¿cómo se usa el ahumador?"], "limit": 3}]
        }
    )


class SearchResult(PublicModel):
    hits: list[HitPublic]
    query_vector: list[float] | None = None


class SearchBatchResponse(PublicModel):
    results: Annotated[list[SearchResult], Field(description="One per query, in their order.")]
    mode: Mode = "dense"
    encoder: Used
    rule: Rule
    route: RouteTaken = None
    took_ms: Took
