"""`python -m tests.takeover.elasticsearch_rest PORT FILE`: the routes of Elasticsearch that a takeover uses, for tests.

No server is at hand where these run. FILE is JSON: {index: {"mappings": …, "documents": [[id, document], …]}}. As in
9.2, `_source` has no vectors; a point in time lives until it is deleted, and what a search asks without one is refused.
"""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

KEY = "ApiKey secret"
MOST = 10_000

app = FastAPI()
indexes: dict[str, Any] = {}
points: dict[str, str] = {}
numbers = count(1)


@app.middleware("http")
async def asks_for_a_key(request: Request, call_next: Any) -> Any:
    if request.headers.get("authorization") != KEY:
        return JSONResponse({"error": {"type": "security_exception"}, "status": 401}, 401)
    if (index := request.url.path.split("/")[1]) not in {*indexes, "_search", "_pit"}:
        return JSONResponse({"error": {"type": "index_not_found_exception", "index": index}, "status": 404}, 404)
    return await call_next(request)


@app.get("/{index}/_mapping")
def mapping(index: str) -> Any:
    return {index: {"mappings": indexes[index]["mappings"]}}


@app.get("/{index}/_count")
def counted(index: str) -> Any:
    return {"count": len(indexes[index]["documents"]), "_shards": {"total": 1, "successful": 1}}


@app.post("/{index}/_pit")
def open_point(index: str, keep_alive: str) -> Any:
    assert keep_alive
    point = f"point-{next(numbers)}"
    points[point] = index
    return {"id": point}


@app.delete("/_pit")
async def close_point(request: Request) -> Any:
    del points[(await request.json())["id"]]
    return {"succeeded": True, "num_freed": 1}


@app.get("/_pit/open")
def open_points() -> Any:
    return {"open": len(points)}


@app.post("/_search")
async def search(request: Request) -> Any:
    asked = await request.json()
    if (point := asked["pit"]["id"]) not in points or asked["size"] > MOST or asked["sort"] != ["_shard_doc"]:
        return JSONResponse({"error": {"type": "search_phase_execution_exception"}, "status": 400}, 400)
    index = indexes[points[point]]
    vectors = {name for name, about in index["mappings"]["properties"].items() if about["type"] == "dense_vector"}
    wanted = set(asked["query"]["ids"]["values"]) if "query" in asked else None
    after = asked.get("search_after", [-1])[0]
    hits = []
    for place, (id, document) in enumerate(index["documents"]):
        if place > after and (wanted is None or id in wanted) and len(hits) < asked["size"]:
            hit = {"_index": points[point], "_id": id, "_score": None, "sort": [place]}
            if asked["_source"] is not False:
                hit["_source"] = {name: value for name, value in document.items() if name not in vectors}
            if fields := {name: document[name] for name in asked.get("fields", []) if name in document}:
                hit["fields"] = fields
            hits.append(hit)
    return {"pit_id": point, "took": 1, "timed_out": False, "hits": {"hits": hits}}


if __name__ == "__main__":
    indexes |= json.loads(Path(sys.argv[2]).read_text())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
