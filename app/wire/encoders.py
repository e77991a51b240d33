"""What `/encoders` takes and answers."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from app.wire.common import HubName, Name, PublicModel, RequestModel, Revision


class EncoderSource(RequestModel):
    """One of `path`, `job` and `hub`; `revision` goes with `hub`."""

    path: str | None = Field(
        None, description="A folder on the server in one of ADIABAT_SOURCE_DIRS; absolute, or relative to it."
    )
    job: str | None = Field(None, description="The id of a tuning job that made an encoder.")
    hub: HubName | None = Field(None, description="A name on the model hub, where ADIABAT_HUB allows it.")
    revision: Revision | None = Field(None, description="A branch, tag or commit there; without it the newest.")

    @model_validator(mode="after")
    def _one_of(self) -> "EncoderSource":
        if [self.path, self.job, self.hub].count(None) != 2:
            raise ValueError("send one of 'path' (a folder), 'job' (a tuning job's id) and 'hub' (a name there)")
        if self.revision is not None and self.hub is None:
            raise ValueError("'revision' goes with 'hub'")
        return self


class EncoderFields(RequestModel):
    """What is said of an encoder, wherever it comes from."""

    name: Name
    description: Annotated[str, Field(max_length=4_000)] = ""
    labels: dict[str, str] = Field(default_factory=dict, max_length=32)
    force: bool = Field(False, description="Register although the probes disagree with the base.")


class EncoderCreate(EncoderFields):
    source: EncoderSource

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "bees",
                    "source": {"path": "bees"},
                    "description": "Tuned on the questions of 2026.",
                    "labels": {"domain": "beekeeping"},
                }
            ]
        }
    )


def _with_archive(schema: dict[str, Any]) -> None:
    """The file is no field of the model: it is never in memory."""
    schema["properties"]["archive"] = {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "description": "zip, tar or tar.gz of a sentence-transformers folder.",
    }
    schema["required"].append("archive")
    schema["examples"] = [{"name": "bees", "labels": {"domain": "beekeeping"}, "archive": "bees.tar.gz"}]


class EncoderUpload(EncoderFields):
    """A form (multipart/form-data) of these fields and the file `archive` (the example names one); `labels` is JSON."""

    model_config = ConfigDict(json_schema_extra=_with_archive)


class Lineage(PublicModel):
    base: str | None = None
    parent: str | None = None
    digest: str


class EncoderPublic(PublicModel):
    name: str
    version: int
    digest: str
    lineage: Lineage
    admission: str
    state: str
    active: bool
    size_bytes: int
    description: str
    labels: dict[str, str]
    metrics: dict[str, Any]
    checks: list[dict[str, Any]]
    created_at: float
    versions: list[int] | None = None


class EncoderList(PublicModel):
    encoders: list[EncoderPublic]
