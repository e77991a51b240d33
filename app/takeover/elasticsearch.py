"""An index of Elasticsearch with a field of dense vectors, read at a point in time, whatever is written meanwhile.

The vectors are asked for as `fields`, which every release answers; in `_source` 9.2 and later leave them out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np

from app.errors import BadInput, NotFound, Unauthorized, Unavailable
from app.takeover.source import Found

KEEP_ALIVE = "10m"
TIMEOUT_S = 60
IDS_AT_ONCE = 10_000  # what an index lets one answer hold, unless somebody changed it
AT_ONCE = 256


class ElasticsearchSource:
    """Raises `NotFound`, `Unauthorized`, `Unavailable`, and `BadInput` where `vector` is no field of float vectors."""

    def __init__(self, url: str, index: str, vector: str | None = None, api_key: str | None = None) -> None:
        headers = {"Authorization": f"ApiKey {api_key}"} if api_key else {}
        self._at = str(httpx.URL(url).copy_with(userinfo=b""))  # for people
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        self._index = index
        try:
            fields: dict[str, Any] = {}
            for mapping in self._call("GET", f"/{index}/_mapping").values():
                fields |= dict(_vector_fields(mapping["mappings"].get("properties", {})))
            self._vector = _chosen(index, fields, vector)
        except BaseException:
            self.close()
            raise
        self._about = fields[self._vector]

    @property
    def said(self) -> str:
        return f"the index {self._index!r}"

    @property
    def dimension(self) -> int:
        return int(self._about.get("dims", 0))

    @property
    def by_cosine(self) -> bool:
        return str(self._about.get("similarity", "cosine")) == "cosine"

    def count(self) -> int:
        return int(self._call("GET", f"/{self._index}/_count")["count"])

    def sample(self, ranks: Sequence[int]) -> list[Found]:
        """One pass over the ids in the index's order."""
        wanted, rank, ids = set(ranks), 0, []
        for page in self._hits({"size": IDS_AT_ONCE, "_source": False}):
            ids += [hit["_id"] for place, hit in enumerate(page, rank) if place in wanted]
            rank += len(page)
        found: dict[str, Found] = {}
        for at in range(0, len(ids), AT_ONCE):
            some = ids[at : at + AT_ONCE]
            asked = self._whole() | {"size": len(some), "query": {"ids": {"values": some}}}
            found |= {hit["_id"]: self._found(hit) for page in self._hits(asked) for hit in page}
        return [found[id] for id in ids if id in found]

    def pages(self) -> Iterator[list[Found]]:
        for page in self._hits(self._whole() | {"size": AT_ONCE}):
            yield [self._found(hit) for hit in page]

    def close(self) -> None:
        self._http.close()

    def _whole(self) -> dict[str, Any]:
        return {"_source": {"excludes": [self._vector]}, "fields": [self._vector]}

    def _hits(self, asked: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """All hits of a search, page by page, of one point in time."""
        point = self._call("POST", f"/{self._index}/_pit", params={"keep_alive": KEEP_ALIVE})["id"]
        after: dict[str, Any] = {}
        try:
            while True:
                body = asked | {"pit": {"id": point, "keep_alive": KEEP_ALIVE}, "sort": ["_shard_doc"]} | after
                answer = self._call("POST", "/_search", json=body | {"track_total_hits": False})
                point, hits = answer.get("pit_id", point), answer["hits"]["hits"]
                if not hits:
                    return
                yield hits
                after = {"search_after": hits[-1]["sort"]}
        finally:
            self._call("DELETE", "/_pit", json={"id": point})

    def _found(self, hit: dict[str, Any]) -> Found:
        vector = (hit.get("fields") or {}).get(self._vector)
        return Found(
            at=hit["_id"],
            payload=hit.get("_source") or {},
            vector=None if vector is None else np.asarray(vector, dtype=np.float32),
        )

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Raises what stands for the server's answers in our words."""
        try:
            answer = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"Elasticsearch at {self._at} does not answer ({error}).") from error
        if answer.is_success:
            return dict(answer.json())
        if answer.status_code in (401, 403):
            raise Unauthorized("Elasticsearch wants a key, or another one: name it with --from-api-key.")
        if answer.status_code == 404:
            raise NotFound(f"There is no index {self._index!r} at {self._at}.")
        raise Unavailable(f"Elasticsearch answered {answer.status_code}: {answer.text[:300]}")


def _vector_fields(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, about in properties.items():
        if about.get("type") == "dense_vector":
            yield f"{prefix}{name}", about
        elif about.get("type", "object") == "object":
            yield from _vector_fields(about.get("properties", {}), f"{prefix}{name}.")


def _chosen(index: str, fields: dict[str, Any], wanted: str | None) -> str:
    """The field to take. Raises `BadInput`."""
    names = ", ".join(map(repr, fields)) or "none"
    if wanted is None and len(fields) != 1:
        raise BadInput(
            f"The index {index!r} has these fields of dense vectors: {names}; say which with --vector-field."
        )
    name = next(iter(fields)) if wanted is None else wanted
    if name not in fields:
        raise BadInput(f"The index {index!r} has no field of dense vectors {name!r}; it has: {names}.")
    if (kind := fields[name].get("element_type", "float")) not in ("float", "bfloat16"):
        raise BadInput(f"The field {name!r} holds vectors of {kind}; only vectors of floats can be taken over.")
    return name
