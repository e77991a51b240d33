"""A collection on a Qdrant server, or in a folder that qdrant-client wrote, read as it lies."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.addresses import shown
from app.errors import BadInput, NotFound, Unauthorized, Unavailable
from app.passages.qdrant_calls import connect
from app.passages.store import Vector
from app.takeover.source import Found

Result = TypeVar("Result")

IDS_AT_ONCE = 10_000
AT_ONCE = 256
UNNAMED = ""


def open_client(where: str, api_key: str | None = None) -> QdrantClient:
    """`where`: the address of a server, or a folder that `QdrantClient(path=…)` wrote. Raises `BadInput`."""
    if where.startswith(("http://", "https://")):
        return connect(where, api_key)
    if not (Path(where) / "meta.json").is_file():
        raise BadInput(
            f"--from is {where!r}; the address of a Qdrant server is expected, such as http://qdrant:6333, or a folder "
            "that QdrantClient(path=…) wrote."
        )
    try:
        return QdrantClient(path=where)
    except RuntimeError as error:
        raise Unavailable(f"{where} is open in another process; end that one, and repeat the command.") from error


class QdrantSource:
    """Raises `NotFound`, `Unauthorized`, `Unavailable`, and `BadInput` where there is no one dense vector to take."""

    def __init__(self, client: QdrantClient, collection: str, vector_name: str | None = None) -> None:
        self._client = client
        self._collection = collection
        if not self._call(client.collection_exists, collection):
            there = ", ".join(sorted(repr(each.name) for each in self._call(client.get_collections).collections))
            raise NotFound(f"There is no collection {collection!r}; there are: {there or 'none'}.")
        vectors = self._call(client.get_collection, collection).config.params.vectors
        named = vectors if isinstance(vectors, dict) else {} if vectors is None else {UNNAMED: vectors}
        self._vector = _chosen(collection, named, vector_name)
        self._params = named[self._vector]

    @property
    def said(self) -> str:
        return f"the collection {self._collection!r}"

    @property
    def dimension(self) -> int:
        return self._params.size

    @property
    def by_cosine(self) -> bool:
        return self._params.distance == models.Distance.COSINE

    def count(self) -> int:
        return self._call(self._client.count, self._collection, exact=True).count

    def sample(self, ranks: Sequence[int]) -> list[Found]:
        """One pass over the ids: Qdrant knows no places in their order."""
        wanted, rank, ids = set(ranks), 0, []
        for page in self._scroll(IDS_AT_ONCE, with_payload=False, with_vectors=False):
            ids += [record.id for place, record in enumerate(page, rank) if place in wanted]
            rank += len(page)
        found: dict[Any, models.Record] = {}
        for at in range(0, len(ids), AT_ONCE):
            records = self._call(
                self._client.retrieve, self._collection, ids[at : at + AT_ONCE], with_payload=True, with_vectors=True
            )
            found |= {record.id: record for record in records}
        return [self._found(found[id]) for id in ids if id in found]

    def pages(self) -> Iterator[list[Found]]:
        for page in self._scroll(AT_ONCE, with_payload=True, with_vectors=True):
            yield [self._found(record) for record in page]

    def _scroll(self, limit: int, **parts: bool) -> Iterator[list[models.Record]]:
        at: Any = None
        while True:
            page, at = self._call(self._client.scroll, self._collection, limit=limit, offset=at, **parts)
            yield page
            if at is None:
                return

    def _found(self, record: models.Record) -> Found:
        return Found(at=str(record.id), payload=record.payload or {}, vector=self._dense(record.vector))

    def _dense(self, given: Any) -> Vector | None:
        """An unnamed vector comes bare, or beside sparse ones under no name."""
        vector = given.get(self._vector) if isinstance(given, dict) else given
        return None if vector is None else np.asarray(vector, dtype=np.float32)

    def _call(self, method: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """`method` of the client, with what it raises in our words."""
        try:
            return method(*arguments, **options)
        except ResponseHandlingException as error:
            url = self._client.init_options.get("url")
            raise Unavailable(f"The Qdrant server at {shown(str(url))} does not answer ({error.source}).") from error
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise Unauthorized(
                    "The Qdrant server wants a key, or another one: name it with --from-api-key."
                ) from error
            said = error.content.decode(errors="replace")[:300]
            raise Unavailable(f"The Qdrant server answered {error.status_code}: {said}") from error


def _chosen(collection: str, named: dict[str, models.VectorParams], wanted: str | None) -> str:
    """The name of the vector to take. Raises `BadInput`."""
    names = ", ".join(repr(name) if name else "one without a name" for name in named) or "none"
    if wanted is None and len(named) != 1:
        raise BadInput(f"The collection {collection!r} has these dense vectors: {names}; say which with --vector-name.")
    name = next(iter(named)) if wanted is None else wanted
    if name not in named:
        raise BadInput(f"The collection {collection!r} has no vector {name!r}; its dense vectors: {names}.")
    if named[name].multivector_config is not None:
        raise BadInput(
            f"The vector {name or 'without a name'} of the collection {collection!r} is a matrix for each point (late "
            "interaction); only a single vector for each can be taken over."
        )
    return name
