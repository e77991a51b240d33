"""`python -m tests.qdrant_rest PORT [FOLDER]`: qdrant-client's local mode behind the REST routes that the adapter uses.

For tests with several services on one collection where no Qdrant server is at hand; `ADIABAT_TEST_QDRANT_URL` names a
real one instead. It keeps everything in memory, or in FOLDER, and answers one request at a time.
"""

import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from qdrant_client import QdrantClient, models
from qdrant_client.http.models import (
    CountRequest,
    CreateCollection,
    PointRequest,
    QueryRequestBatch,
    ScrollRequest,
    UpdateCollection,
    UpdateOperations,
)

app = FastAPI()
client = QdrantClient(path=sys.argv[2]) if len(sys.argv) > 2 else QdrantClient(":memory:")
one_at_a_time = threading.Lock()
hnsw_configs: dict[str, dict[str, Any]] = {}  # the local mode forgets them


def answered(work: Callable[[], Any]) -> Response:
    with one_at_a_time:
        result = work()
    dumped = result.model_dump(mode="json", exclude_none=True) if hasattr(result, "model_dump") else result
    return JSONResponse({"result": dumped, "status": "ok", "time": 0.0})


def listed(records: Any) -> list[Any]:
    return [each.model_dump(mode="json", exclude_none=True) for each in records]


DONE = {"operation_id": 0, "status": "completed"}


@app.get("/collections")
def every() -> Response:
    return answered(client.get_collections)


@app.get("/collections/{name}/exists")
def exists(name: str) -> Response:
    return answered(lambda: {"exists": client.collection_exists(name)})


@app.get("/collections/{name}")
def read(name: str) -> Response:
    if not client.collection_exists(name):
        return JSONResponse({"status": {"error": f"Collection {name} doesn't exist"}}, 404)
    info = client.get_collection(name)
    info.config.hnsw_config = info.config.hnsw_config.model_copy(update=hnsw_configs[name])
    return answered(lambda: info)


@app.put("/collections/{name}")
def create(name: str, body: CreateCollection) -> Response:
    hnsw_configs[name] = body.hnsw_config.model_dump(exclude_none=True) if body.hnsw_config else {}
    given = {"vectors_config": body.vectors, "sparse_vectors_config": body.sparse_vectors, "metadata": body.metadata}
    return answered(lambda: client.create_collection(name, **given))


@app.patch("/collections/{name}")
def update(name: str, body: UpdateCollection) -> Response:
    return answered(lambda: client.update_collection(name, metadata=body.metadata))


@app.put("/collections/{name}/vectors/{vector}")
def create_vector(name: str, vector: str, body: models.SparseVectorNameConfig) -> Response:
    return answered(lambda: client.create_vector_name(name, vector, body) and DONE)


@app.put("/collections/{name}/index")
def index(name: str) -> Response:  # noqa: ARG001  # the local mode has no payload indexes
    return answered(lambda: DONE)


@app.put("/collections/{name}/points")
async def upsert(name: str, request: Request) -> Response:
    body = models.PointsList.model_validate_json(await request.body())
    return answered(lambda: client.upsert(name, body.points) and DONE)


@app.post("/collections/{name}/points")
def retrieve(name: str, body: PointRequest) -> Response:
    given = {"with_payload": body.with_payload, "with_vectors": body.with_vector or False}
    return answered(lambda: listed(client.retrieve(name, body.ids, **given)))


@app.put("/collections/{name}/points/vectors")
def update_vectors(name: str, body: models.UpdateVectors) -> Response:
    return answered(lambda: client.update_vectors(name, body.points) and DONE)


@app.post("/collections/{name}/points/delete")
async def delete(name: str, request: Request) -> Response:
    body = models.PointIdsList.model_validate_json(await request.body())
    return answered(lambda: client.delete(name, body) and DONE)


@app.post("/collections/{name}/points/batch")
def batch(name: str, body: UpdateOperations) -> Response:
    return answered(lambda: client.batch_update_points(name, body.operations) and [DONE])


@app.post("/collections/{name}/points/scroll")
def scroll(name: str, body: ScrollRequest) -> Response:
    def page() -> dict[str, Any]:
        found, following = client.scroll(
            name,
            scroll_filter=body.filter,
            limit=body.limit or 10,
            offset=body.offset,
            with_payload=body.with_payload if body.with_payload is not None else True,
            with_vectors=body.with_vector or False,
        )
        return {"points": listed(found), "next_page_offset": following}

    return answered(page)


@app.post("/collections/{name}/points/count")
def count(name: str, body: CountRequest) -> Response:
    return answered(lambda: client.count(name, body.filter, exact=True))


@app.post("/collections/{name}/points/query/batch")
def query(name: str, body: QueryRequestBatch) -> Response:
    asked = [each.model_copy(update={"params": None}) for each in body.searches]  # the local mode is always exact
    return answered(lambda: listed(client.query_batch_points(name, asked)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of the local mode, which is not made for more than trying things out
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
