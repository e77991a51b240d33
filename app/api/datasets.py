"""`/datasets`: put a zip in BEIR shape, list, read."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as PathParam
from starlette.concurrency import run_in_threadpool

from app.api.deps import PartsDep
from app.registry import DatasetRecord
from app.wire.common import NAME_PATTERN
from app.wire.datasets import DatasetList, DatasetPublic

router = APIRouter(prefix="/datasets", tags=["datasets"])

Name = Annotated[str, PathParam(pattern=NAME_PATTERN)]


@router.put(
    "/{name}",
    response_model=DatasetPublic,
    openapi_extra={"requestBody": {"required": True, "content": {"application/zip": {}}}},
)
async def put_dataset(name: Name, request: Request, parts: PartsDep) -> DatasetPublic:
    """Upload a zip of `queries.jsonl`, `qrels/<split>.tsv` and optionally `corpus.jsonl`.

    Without a corpus the qrels name stored passages; with one the dataset is searched on its own. The same
    name again replaces it: running jobs keep the content they began with.
    """
    with parts.artifacts.staging() as folder:
        archive = folder / "dataset.zip"
        with archive.open("wb") as sink:
            async for chunk in request.stream():
                await run_in_threadpool(sink.write, chunk)
        return _public(await run_in_threadpool(parts.datasets.put_zip, name, archive))


@router.get("", response_model=DatasetList)
def list_datasets(parts: PartsDep) -> DatasetList:
    return DatasetList(datasets=[_public(record) for record in parts.registry.datasets.all()])


@router.get("/{name}", response_model=DatasetPublic)
def read_dataset(name: Name, parts: PartsDep) -> DatasetPublic:
    return _public(parts.registry.datasets.get(name))


def _public(record: DatasetRecord) -> DatasetPublic:
    return DatasetPublic(name=record.name, digest=record.digest, created_at=record.created_at, **record.counts)
