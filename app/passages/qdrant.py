"""The passage store on a Qdrant server through `qdrant-client` (its local mode, ":memory:", is for tests).

The index space lies in the collection's metadata, which Qdrant keeps since 1.16, and beside it an id of the collection,
which no other one has, and of what format its lexical side is.
"""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

from app.errors import Conflict, NoLexicalSide, Unavailable
from app.passages import lexical, payload, qdrant_queries
from app.passages.export import is_complete, write_export
from app.passages.fusion import DEPTH, Ranking, cut, fuse
from app.passages.index_space import IndexSpace
from app.passages.lexical import LEXICAL
from app.passages.payload import DENSE, EF_CONSTRUCT, METADATA, point_id
from app.passages.qdrant_calls import COLLECTION_ID, INDEX_SPACE, client_of, in_our_words, patiently
from app.passages.qdrant_points import new_terms, to_hit, to_overwrite, to_point
from app.passages.store import Hashes, Hit, Passage, Point, StoredPassage, StoreInfo, Vector
from app.settings import Settings

Result = TypeVar("Result")

LEXICAL_FORMAT = "adiabat_lexical"
WRITE_SLICE = 256
READ_SLICE = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Of a collection that is made: how many shards, copies of each, and copies that a write waits for.

    None: what the server does by itself.
    """

    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None


def open_collection(settings: Settings, url: str, index_space: IndexSpace) -> "QdrantStore":
    """The collection that the settings name, made as they say where it is missing. Raises as `QdrantStore` does."""
    layout = Layout(
        shards=settings.qdrant_shards,
        replicas=settings.qdrant_replicas,
        write_consistency=settings.qdrant_write_consistency,
    )
    fields = settings.indexed_fields
    return QdrantStore(client_of(settings, url), settings.collection, index_space, indexed_fields=fields, layout=layout)


class QdrantStore:
    """Creates the collection if it is missing. Raises IndexSpaceMismatch or Unavailable.

    `StoreInfo.writes` counts this process's writes from its start, in milliseconds since 1970: it grows over
    restarts, but two processes that write to one collection do not see each other's count.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        index_space: IndexSpace,
        *,
        indexed_fields: Sequence[str] = (),
        layout: Layout = Layout(),  # it is frozen
    ) -> None:
        self._client = client
        self._layout = layout
        self._collection = collection
        self._space = index_space
        self._local = isinstance(client._client, QdrantLocal)
        # The local mode is plain Python data that threads would tear; a server needs no lock of ours.
        self._one_at_a_time = threading.Lock() if self._local else nullcontext()
        self._writes = time.time_ns() // 1_000_000
        self._counting = threading.Lock()
        self._closed = False
        self._lexical = False
        self._open(indexed_fields)

    @property
    def index_space(self) -> IndexSpace:
        return self._space

    @property
    def lexical(self) -> bool:
        return self._lexical

    # Writing

    def upsert(self, points: Sequence[Point], *, durable: bool = False) -> None:  # noqa: ARG002 - the port's
        """The server logs every write before it answers; `durable` adds nothing."""
        checked = payload.last_of_each(points, self._space.dimension)
        made = [to_point(point, vector, with_terms=self._lexical) for point, vector in checked]
        for taken in _slices(made, WRITE_SLICE):
            self._write(self._client.upsert, taken)

    def set_metadata(self, items: Sequence[tuple[Passage, str]]) -> int:
        latest = {passage.id: (passage, content_hash) for passage, content_hash in items}
        stored = [one.payload for one in self._retrieve(list(latest), [*payload.HASH_KEYS, f"{METADATA}.lang"], False)]
        for taken in _slices(stored, WRITE_SLICE):
            operations: list[Any] = []
            for told in taken:
                passage, content_hash = latest[told[payload.OURS]["id"]]
                before = lexical.language_of(told.get(METADATA) or {})
                if self._lexical and before != lexical.language_of(passage.metadata):
                    operations.append(models.UpdateVectorsOperation(update_vectors=new_terms([passage])))
                operations.append(to_overwrite(passage.id, payload.to_payload(passage, content_hash)))
            self._write(self._client.batch_update_points, operations)
        return len(stored)

    def delete(self, ids: Sequence[str], *, durable: bool = False) -> int:  # noqa: ARG002 - the port's
        present = self._present(list(dict.fromkeys(ids)))
        for taken in _slices([str(point_id(id)) for id in present], WRITE_SLICE):
            self._write(self._client.delete, models.PointIdsList(points=[*taken]))
        return len(present)

    def delete_by_filter(self, filter: models.Filter) -> int:
        deleted, cursor = 0, None
        while True:
            found, cursor = self.page(cursor, READ_SLICE, filter)
            deleted += self.delete([one.passage.id for one in found])
            if cursor is None:
                return deleted

    def flush(self) -> None:
        """Every acknowledged write is in the server's log already."""

    # Reading

    def fetch(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[StoredPassage]:
        records = self._retrieve(ids, True, with_vectors)
        return payload.in_order((payload.to_stored(one.payload, one.vector) for one in records), ids)

    def content_hashes(self, ids: Sequence[str]) -> dict[str, Hashes]:
        return payload.to_hashes(one.payload for one in self._retrieve(ids, payload.HASH_KEYS, False))

    def page(
        self,
        cursor: str | None,
        limit: int,
        filter: models.Filter | None = None,
        with_vectors: bool = False,
    ) -> tuple[list[StoredPassage], str | None]:
        at = payload.to_cursor(cursor)
        records, following = self._call(
            self._client.scroll,
            scroll_filter=filter,
            limit=limit,
            offset=None if at is None else str(at),
            with_payload=True,
            with_vectors=[DENSE] if with_vectors else False,
        )
        found = [payload.to_stored(one.payload, one.vector) for one in records]
        return found, None if following is None else str(following)

    def search(
        self,
        vector: Vector,
        *,
        limit: int,
        offset: int = 0,
        filter: models.Filter | None = None,
        score_threshold: float | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> list[Hit]:
        [hits] = self.search_batch(
            [vector],
            limit=limit,
            offset=offset,
            filter=filter,
            score_threshold=score_threshold,
            exact=exact,
            with_vectors=with_vectors,
        )
        return hits

    def search_batch(
        self,
        vectors: Sequence[Vector],
        *,
        limit: int,
        offset: int = 0,
        filter: models.Filter | None = None,
        score_threshold: float | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> list[list[Hit]]:
        requests = [
            qdrant_queries.by_vector(
                payload.checked_vector(vector, self._space.dimension),
                limit=limit,
                offset=offset,
                filter=filter,
                score_threshold=score_threshold,
                params=self._params(exact, limit + offset),
                with_vectors=with_vectors,
            )
            for vector in vectors
        ]
        return [[to_hit(one) for one in found] for found in self._answers(requests)]

    def search_lexical(
        self,
        texts: Sequence[str],
        *,
        limit: int,
        offset: int = 0,
        filter: models.Filter | None = None,
        score_threshold: float | None = None,
    ) -> list[list[Hit]]:
        self._require_lexical()
        rankings = self._rankings([qdrant_queries.by_words(text, filter) for text in texts])
        return self._hits([cut(each, limit, offset, score_threshold) for each in rankings])

    def search_hybrid(
        self,
        vectors: Sequence[Vector],
        texts: Sequence[str],
        *,
        limit: int,
        offset: int = 0,
        filter: models.Filter | None = None,
        score_threshold: float | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        self._require_lexical()
        checked = [payload.checked_vector(vector, self._space.dimension) for vector in vectors]
        near = [qdrant_queries.nearest(vector, filter, self._params(exact, DEPTH)) for vector in checked]
        words = [qdrant_queries.by_words(text, filter) for text in texts]
        rankings = self._rankings(near + words)
        both = zip(rankings[: len(near)], rankings[len(near) :], strict=True)
        return self._hits([cut(fuse(*each), limit, offset, score_threshold) for each in both])

    def count(self, filter: models.Filter | None = None) -> int:
        return self._call(self._client.count, count_filter=filter, exact=True).count

    def info(self) -> StoreInfo:
        told = self._call(self._client.get_collection)
        passages = self.count()
        # Lexical vectors, which need no graph, are counted as indexed.
        indexed = (told.indexed_vectors_count or 0) - (passages if self._lexical else 0)
        return StoreInfo(
            passages=passages,
            indexed=min(max(0, indexed), passages),
            segments=told.segments_count,
            writes=self._writes,
            indexing=told.status != models.CollectionStatus.GREEN,
        )

    # The whole

    def export(self, folder: Path) -> None:
        """Reads the live collection: one written meanwhile may be in or not; `writes` is older."""
        if not is_complete(folder):
            write_export(folder, self._pages(), self._space, self._writes)

    def snapshot(self, folder: Path, at_this_point: Callable[[], None]) -> None:  # noqa: ARG002 - the port's
        raise Conflict(
            f"The passages are in the collection {self._collection!r} on a Qdrant server, and a backup holds a data "
            "folder alone: take a snapshot of that collection there (POST /collections/NAME/snapshots) while nothing "
            "is written; docs/operations.md has the whole."
        )

    def add_lexical(self, done: Callable[[int], None]) -> int:
        made = self._call(self._client.get_collection).config.params.sparse_vectors or {}
        if LEXICAL not in made:
            sparse = models.SparseVectorConfig(modifier=models.Modifier.IDF)
            self._call(self._client.create_vector_name, LEXICAL, models.SparseVectorNameConfig(sparse=sparse))
        added, cursor = 0, None
        while True:
            found, cursor = self.page(cursor, WRITE_SLICE)
            if found:
                self._write(self._client.update_vectors, new_terms([one.passage for one in found]).points)
            added += len(found)
            done(added)
            if cursor is None:
                break
        metadata = self._call(self._client.get_collection).config.metadata or {}
        self._call(self._client.update_collection, metadata={**metadata, LEXICAL_FORMAT: lexical.FORMAT})
        self._lexical = True
        return added

    def interrupt(self) -> None:
        self._closed = True

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def _open(self, indexed_fields: Sequence[str]) -> None:
        if not self._call(self._client.collection_exists):
            self._create()
        self._require_index_space()
        # The local mode has no payload indexes and would warn of it.
        for key in () if self._local else indexed_fields:
            self._call(self._client.create_payload_index, f"{METADATA}.{key}", models.PayloadSchemaType.KEYWORD)

    def _create(self) -> None:
        # Qdrant's Cosine normalises every vector again; Dot gives back what was given.
        dot = self._space.distance == "dot" or self._space.normalized
        distance = models.Distance.DOT if dot else models.Distance.COSINE
        vectors = {DENSE: models.VectorParams(size=self._space.dimension, distance=distance)}
        metadata = {
            INDEX_SPACE: self._space.to_dict(),
            COLLECTION_ID: uuid.uuid4().hex,
            LEXICAL_FORMAT: lexical.FORMAT,
        }
        self._once(
            self._client.create_collection,
            vectors_config=vectors,
            sparse_vectors_config={LEXICAL: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            hnsw_config=models.HnswConfigDiff(ef_construct=EF_CONSTRUCT),
            metadata=metadata,
            shard_number=self._layout.shards,
            replication_factor=self._layout.replicas,
            write_consistency_factor=self._layout.write_consistency,
        )

    def _require_index_space(self) -> None:
        metadata = self._call(self._client.get_collection).config.metadata or {}
        if INDEX_SPACE not in metadata:
            raise Unavailable(
                f"The Qdrant collection {self._collection!r} does not say which index space it is of: "
                "it was made by something else, or by a server older than 1.16. "
                "Name another collection (ADIABAT_COLLECTION), or update the server."
            )
        IndexSpace.from_dict(metadata[INDEX_SPACE]).require(self._space)
        self._lexical = metadata.get(LEXICAL_FORMAT) == lexical.FORMAT

    def _require_lexical(self) -> None:
        if not self._lexical:
            raise NoLexicalSide(lexical.MISSING)

    def _params(self, exact: bool, wanted: int) -> models.SearchParams | None:
        # The local mode is always exact and warns of being told so.
        return None if self._local else models.SearchParams(exact=exact, hnsw_ef=payload.search_ef(wanted))

    def _answers(self, requests: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        answers = self._call(self._client.query_batch_points, requests) if requests else []
        return [answer.points for answer in answers]

    def _rankings(self, requests: Sequence[models.QueryRequest]) -> list[Ranking[str]]:
        return [[(str(one.id), one.score) for one in found] for found in self._answers(requests)]

    def _hits(self, pages: list[Ranking[str]]) -> list[list[Hit]]:
        """What is deleted meanwhile is left out."""
        records = self._records({point for page in pages for point, _ in page}, True, False)
        passages = {str(one.id): payload.to_passage(one.payload) for one in records}
        return [[Hit.of(passages[point], score) for point, score in page if point in passages] for page in pages]

    def _pages(self) -> Iterator[list[StoredPassage]]:
        cursor = None
        while True:
            found, cursor = self.page(cursor, READ_SLICE, with_vectors=True)
            yield found
            if cursor is None:
                return

    def _present(self, ids: Sequence[str]) -> list[str]:
        return [one.payload[payload.OURS]["id"] for one in self._retrieve(ids, payload.HASH_KEYS, False)]

    def _retrieve(self, ids: Sequence[str], with_payload: Any, with_vectors: bool) -> Iterator[Any]:
        return self._records([str(point_id(id)) for id in dict.fromkeys(ids)], with_payload, with_vectors)

    def _records(self, points: Collection[str], with_payload: Any, with_vectors: bool) -> Iterator[Any]:
        vectors = [DENSE] if with_vectors else False
        for taken in _slices(list(points), READ_SLICE):
            yield from self._call(self._client.retrieve, taken, with_payload=with_payload, with_vectors=vectors)

    def _write(self, method: Callable[..., Any], change: Any) -> None:
        self._call(method, change, wait=True)
        with self._counting:
            self._writes += 1

    def _call(self, method: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """`method` of the client, on our collection, a few times where the server cannot be reached."""
        return patiently(lambda: self._once(method, *arguments, **options))

    def _once(self, method: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """With what it raises in our words."""
        if self._closed:
            raise Unavailable("The passage store is closed.")
        with in_our_words(self._client), self._one_at_a_time:
            return method(self._collection, *arguments, **options)


def _slices(items: Sequence[Result], size: int) -> Iterator[list[Result]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
