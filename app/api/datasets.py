"""`/datasets`: put an archive in BEIR shape, NDJSON or a name on the hub; list, read, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParam
from starlette.concurrency import run_in_threadpool

from app.api.deps import Parts, PartsDep
from app.api.description import REFERENCE, archive_example
from app.api.scopes import Scoped
from app.api.uploads import content_type, read_json
from app.datasets import refuse_built_in
from app.hub import check_enabled
from app.hub_datasets import HubDataset
from app.registry import DatasetRecord
from app.wire.common import Name
from app.wire.datasets import (
    EXAMPLE_FILES,
    EXAMPLE_LINES,
    DatasetList,
    DatasetPublic,
    DatasetSource,
    UnknownPassages,
)

JSON = "application/json"
NDJSON = "application/x-ndjson"
ZIP = "application/zip"
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {"schema": {"$ref": REFERENCE.format(model=DatasetSource.__name__)}},
        NDJSON: {"schema": {"type": "string"}, "examples": {"judged questions": {"value": EXAMPLE_LINES}}},
        ZIP: {
            "schema": {"type": "string", "format": "binary"},
            "examples": {"judged questions": archive_example(EXAMPLE_FILES)},
        },
    },
}

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=Scoped)

DatasetName = Annotated[Name, PathParam(examples=["beekeeping"])]


@router.put("/{name}", response_model=DatasetPublic, openapi_extra={"requestBody": BODY})
async def put_dataset(name: DatasetName, request: Request, parts: PartsDep) -> DatasetPublic:
    """Upload judged queries: an archive (zip, tar, tar.gz) in BEIR shape, or NDJSON; or name a dataset on the hub.

    The archive holds `queries.jsonl`, `qrels/<split>.tsv` and optionally `corpus.jsonl`. NDJSON has a line for each
    query: `{"query": …, "relevant": [passage ids] or {id: score}, "id"?, "lang"?, "split"?}`; the split is `train` if
    not named. Lines `{"passage": …, "id": …, "title"?}` among them make a corpus. JSON names a repository on the hub,
    where ADIABAT_HUB allows it, and perhaps a second one with the judgments: `{"hub": "BeIR/scifact", "qrels":
    "BeIR/scifact-qrels"}`; data alone is fetched, no code, and `source` tells the commits.

    Without a corpus the judgments name stored passages, and `unknown_passages` tells which are not stored; with one
    the dataset is searched on its own. The same name again replaces it: jobs keep the content they began with.
    `judgments` is refused: it is the built-in dataset that `POST /judgments` fills.

        curl -H 'Content-Type: application/zip' -T bees.zip http://127.0.0.1:8000/datasets/bees
    """
    refuse_built_in(name)
    kind = content_type(request)
    if kind == JSON:
        wanted = await read_json(request, DatasetSource)
        record = await run_in_threadpool(_fetch, name, wanted, parts)
        return await run_in_threadpool(_read, record, parts)
    with parts.artifacts.staging() as folder:
        body = folder / "body"
        with body.open("wb") as sink:
            async for chunk in request.stream():
                await run_in_threadpool(sink.write, chunk)
        put = parts.datasets.put_lines if kind == NDJSON else parts.datasets.put_archive
        record = await run_in_threadpool(put, name, body)
    return await run_in_threadpool(_read, record, parts)


@router.get("", response_model=DatasetList, response_model_exclude_unset=True)
def list_datasets(parts: PartsDep) -> DatasetList:
    """By name; the built-in `judgments` among them once something is judged.

    What a dataset names and the store has not is in `GET /datasets/{name}`.
    """
    return DatasetList(datasets=[_public(record) for record in parts.datasets.all()])


@router.get("/{name}", response_model=DatasetPublic)
def read_dataset(name: DatasetName, parts: PartsDep) -> DatasetPublic:
    """Counts per split and language, and the judgments that name passages which are not stored now."""
    return _read(parts.datasets.get(name), parts)


@router.delete("/{name}", status_code=204)
def delete_dataset(name: DatasetName, parts: PartsDep) -> Response:
    """Refused while an unfinished job was started with it, and for `judgments`."""
    parts.datasets.delete(name)
    return Response(status_code=204)


def _fetch(name: str, source: DatasetSource, parts: Parts) -> DatasetRecord:
    check_enabled(parts.settings.hub, source.hub)
    wanted = HubDataset(
        name=source.hub,
        revision=source.revision,
        qrels=source.qrels,
        qrels_revision=source.qrels_revision,
        corpus=source.corpus,
    )
    with parts.permits.downloads.one():
        return parts.datasets.put_hub(name, wanted)


def _read(record: DatasetRecord, parts: Parts) -> DatasetPublic:
    unknown = parts.datasets.unknown_passages(record)
    return _public(record, unknown_passages=UnknownPassages(count=unknown.count, ids=unknown.ids) if unknown else None)


def _public(record: DatasetRecord, **more: Any) -> DatasetPublic:
    return DatasetPublic(name=record.name, digest=record.digest, created_at=record.created_at, **record.counts, **more)
