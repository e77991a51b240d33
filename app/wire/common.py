"""What several resources share."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.plainly import StrictModel, plainly

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$"),
    plainly("must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit"),
]
DatasetSplit = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(:[A-Za-z0-9_-]{1,64})?$"),
    plainly("must be the name of a dataset, as 'bees' (its split 'test') or 'bees:SPLIT'"),
]
HubName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"),
    plainly("must be a name on the hub, as 'owner/name'"),
]
Revision = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"),
    plainly("must be a branch, tag or commit on the hub"),
]
EncoderKey = Annotated[str, StringConstraints(min_length=1, max_length=140)]


class RequestModel(StrictModel):
    """What a caller sends."""


class PublicModel(BaseModel):
    """Unknown fields are kept: a newer service may send more to an older client. Built when first used, since a client
    uses few of them, and should be imported fast.
    """

    model_config = ConfigDict(extra="allow", defer_build=True)


class EncoderUsed(PublicModel):
    """Which encoder made an answer. `generation` is null where the request named its encoder."""

    name: str
    version: int
    digest: str
    generation: int | None = None


class Problem(PublicModel):
    """RFC 9457. `type` ends in a slug that never changes."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    trace_id: str | None = None  # where the request is in a trace


Metadata = Annotated[dict[str, Any], Field(description="Any JSON object; filters address its keys.")]
