"""What `/passages` takes and answers."""

from typing import Annotated, Any

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from app.wire.common import Metadata, PublicModel, RequestModel

MAX_PASSAGES = 2_000
MAX_BAD_LINES = 1_000
Id = Annotated[str, Field(min_length=1, max_length=512)]


class PassageBody(RequestModel):
    id: Id
    text: str
    title: str = ""
    metadata: Metadata = Field(default_factory=dict)


class PassageLine(PassageBody):
    """A line of an NDJSON body. `_id`, as in a BEIR corpus, may stand for `id`."""

    id: Id = Field(validation_alias=AliasChoices("id", "_id"))


class PassagePublic(PublicModel):
    id: str
    text: str
    title: str
    metadata: Metadata


class PassagesUpsert(RequestModel):
    passages: Annotated[list[PassageBody], Field(min_length=1, max_length=MAX_PASSAGES)]
    durable: bool = Field(False, description="Answer only when the write has reached the disk.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "passages": [
                        {
                            "id": "note-1",
                            "text": "A smoker calms a colony: bees that smell smoke fill up on honey and sting less.",
                            "title": "Smoker",
                            "metadata": {"lang": "en", "topic": "equipment"},
                        },
                        {
                            "id": "note-2",
                            "text": "Der Stockmeißel löst verkittete Rähmchen.",
                            "metadata": {"lang": "de"},
                        },
                    ]
                }
            ]
        }
    )


NDJSON_EXAMPLE = """{"id": "note-1", "text": "A smoker calms a colony.", "title": "Smoker", "metadata": {"lang": "en"}}
{"_id": "note-2", "text": "Der Stockmeißel löst verkittete Rähmchen."}
"""


class PassagesUpserted(PublicModel):
    embedded: Annotated[int, Field(description="New, or with another text or title.")]
    metadata_updated: Annotated[int, Field(description="With other metadata only: not embedded again.")]
    unchanged: int


class BadLine(PublicModel):
    line: Annotated[int, Field(description="Counted from 1, blank lines too.")]
    problem: str


class PassagesStreamed(PassagesUpserted):
    """Of an NDJSON body. `lines`, blank ones left out, is the sum of all the other counts."""

    repeated: Annotated[
        int,
        Field(
            description="Lines whose id came again within the next lines (batches of at most 256), so that the later "
            "one was taken. Farther apart the later line replaces what the earlier one stored, and both count there."
        ),
    ]
    lines: int
    bad_line_count: Annotated[int, Field(description="Lines that are no passage; the others are stored.")]
    bad_lines: Annotated[list[BadLine], Field(description=f"The first {MAX_BAD_LINES:,} of them.")]


class PassagesDelete(RequestModel):
    ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)] | None = None
    filter: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "PassagesDelete":
        if (self.ids is None) == (self.filter is None):
            raise ValueError("send either 'ids' or 'filter'")
        return self

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"ids": ["note-1", "note-2"]},
                {"filter": {"must": [{"key": "lang", "match": {"value": "vi"}}]}},
            ]
        }
    )


class Deleted(PublicModel):
    deleted: int


class PassageListed(PassagePublic):
    vector: Annotated[
        list[float] | None, Field(description="What it was embedded to, where `with_vectors` asks for it.")
    ] = None


class PassagePage(PublicModel):
    passages: list[PassageListed]
    next_cursor: str | None = None


class Count(PublicModel):
    count: int
