"""What `/keys` takes and answers."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.wire.common import Name, PublicModel, RequestModel

Scope = Literal["search", "write", "admin"]
MAX_COUNT = 10**9


class KeyCreate(RequestModel):
    name: Name
    scope: Annotated[Scope, Field(description="Each may do what the ones before it may.")] = "search"
    rate_per_s: Annotated[
        float | None,
        Field(gt=0, le=10**6, allow_inf_nan=False, description="Requests a second, to each process; none: any number."),
    ] = None
    burst: Annotated[
        int | None,
        Field(ge=1, le=10**6, description="How many at once, with `rate_per_s`; if not given, those of one second."),
    ] = None
    daily: Annotated[int | None, Field(ge=1, le=MAX_COUNT, description="Requests of a day in UTC; none: any.")] = None
    expires_at: Annotated[
        float | None, Field(allow_inf_nan=False, le=10**11, description="Seconds since 1970; none: no end.")
    ] = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "operations", "scope": "admin"},
                {"name": "shop", "scope": "search", "rate_per_s": 50, "burst": 100, "daily": 1_000_000},
            ]
        }
    )


class KeyPublic(PublicModel):
    name: str
    scope: str
    rate_per_s: float | None = None
    burst: int | None = None
    daily: int | None = None
    created_at: float
    expires_at: float | None = None
    expired: bool
    used_at: Annotated[float | None, Field(description="The last request, as of a few seconds ago.")] = None
    used_today: Annotated[
        int, Field(description="Of this day in UTC; what other processes served, as of a few seconds ago.")
    ]


class KeyMade(KeyPublic):
    key: Annotated[str, Field(description="The secret. It is shown this once, and kept nowhere.")]


class KeyList(PublicModel):
    keys: list[KeyPublic]
