"""What `/datasets` takes and answers."""

from typing import Any

from app.wire.common import PublicModel


class DatasetPublic(PublicModel):
    name: str
    digest: str
    queries: int
    passages: int | None
    languages: dict[str, int]
    splits: dict[str, Any]
    created_at: float


class DatasetList(PublicModel):
    datasets: list[DatasetPublic]
