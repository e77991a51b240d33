"""What `/audit` answers."""

from typing import Annotated, Any

from pydantic import Field

from app.wire.common import PublicModel


class AuditEntry(PublicModel):
    sequence: int
    at: float
    action: Annotated[str, Field(description="What was done, or `refused`.")]
    key: Annotated[
        str | None,
        Field(
            description="The name of the key, `ADIABAT_API_KEY` for that one; none: no key was asked for, or the "
            "service or its trainer did it by itself."
        ),
    ] = None
    peer: Annotated[str | None, Field(description="The address that the request came from.")] = None
    target: Annotated[str, Field(description="Of what; of a refusal: method and path.")]
    outcome: Annotated[str, Field(description="`done`, `forced`, or the slug of the refusal.")]
    generation: int | None = None
    detail: dict[str, Any]
    request_id: str | None = None


class AuditPage(PublicModel):
    entries: list[AuditEntry]
    next_cursor: str | None = None
