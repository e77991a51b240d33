"""What `/routes` takes and answers."""

from typing import Annotated, Self

from pydantic import (
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)

from app.plainly import plainly
from app.wire.active_encoder import Replicas, Swap
from app.wire.common import EncoderKey, PublicModel, RequestModel

LANGUAGE = r"^[a-z]{2,8}$"
Language = Annotated[
    str,
    StringConstraints(pattern=LANGUAGE),
    plainly("must be a language without its region, in small letters, such as 'de'"),
]
Languages = Annotated[tuple[Language, ...], Field(max_length=200)]
KeyName = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z0-9][a-z0-9._-]{0,63}|ADIABAT_API_KEY)$"),
    plainly("must be the name of an API key, or ADIABAT_API_KEY for the one of that setting"),
]


class RouteFilter(RequestModel):
    """A value that the filter of a search demands of every hit: a `match` with this `value` among its `must`."""

    key: Annotated[str, Field(min_length=1, max_length=256, description="Of the metadata.")]
    value: StrictStr | StrictInt | StrictBool


class RouteMatch(RequestModel):
    """Which searches that name neither a route nor an encoder the route takes: those for which all that is said here
    holds."""

    lang: Annotated[
        Languages, Field(description="The search's `lang` is one of these; its region does not count.")
    ] = ()
    filter: RouteFilter | None = None
    key: Annotated[
        tuple[KeyName, ...],
        Field(max_length=1000, description="The names of the API keys that ask; `ADIABAT_API_KEY` of that one."),
    ] = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.lang or self.filter or self.key):
            raise ValueError(
                "say at least one of lang, filter and key, or leave out match: then searches name the route"
            )
        return self


class RouteSet(RequestModel):
    encoder: Annotated[EncoderKey, Field(description="`name` (the newest that is ready) or `name@version`.")]
    match: RouteMatch | None = None
    base_languages: Annotated[
        Languages, Field(description="Searches of the route in these languages (`lang`) stay on the base.")
    ] = ()
    base_languages_from_card: Annotated[
        bool,
        Field(
            description="Those too in which the encoder finds less than the base by its card: in the mean of MRR@10 "
            "over all its questions in that language. They are looked up now, and kept by name."
        ),
    ] = False
    force: Annotated[bool, Field(description="Also an encoder that its gate rejected.")] = False
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "encoder": "base@1",
                    "match": {"filter": {"key": "topic", "value": "disease"}},
                    "base_languages": ["vi", "zh"],
                }
            ]
        },
    )


class RoutePublic(PublicModel):
    name: str
    encoder: Annotated[str, Field(description="name@version")]
    digest: str
    generation: Annotated[int, Field(description="That made it so: its ETag.")]
    match: RouteMatch | None = None
    base_languages: list[str] = Field(default_factory=list)
    at: float


class RouteList(PublicModel):
    routes: Annotated[list[RoutePublic], Field(description="By name: in this order they are asked for a search.")]


class RouteChangePublic(PublicModel):
    generation: int
    encoder: Annotated[str | None, Field(description="name@version; null: the route was removed")] = None
    match: RouteMatch | None = None
    base_languages: list[str] = Field(default_factory=list)
    reason: Annotated[str, Field(description="`set`, `rollback`, `removed` or `fallback` (its encoder was gone)")]
    forced: bool
    at: float
    note: Annotated[str | None, Field(description="Why the service did it by itself.")] = None


class RouteDetail(RoutePublic):
    history: Annotated[list[RouteChangePublic], Field(description="Newest first.")]


class Mrr(PublicModel):
    """Mean MRR@10 with the base and with the encoder."""

    before: Annotated[float, Field(ge=0, le=1)]
    after: Annotated[float, Field(ge=0, le=1)]


class LanguageFigures(PublicModel):
    queries: Annotated[int, Field(ge=1, le=10**9, description="Of dev and guards, on which nothing was chosen.")]
    mrr: Mrr


class RouteSwitched(PublicModel):
    name: str
    route: Annotated[RoutePublic | None, Field(description="As it stands now; null where it was removed.")] = None
    from_card: Annotated[
        dict[str, LanguageFigures] | None,
        Field(description="With `base_languages_from_card`: the languages that stay on the base by the card, and why."),
    ] = None
    generation: Annotated[int, Field(description="That made it so.")]
    swap: Swap
    replicas: Replicas
