"""The passage store on Qdrant Edge, the Qdrant engine in this process: nothing to start.

Edge holds the GIL in every call, so this adapter keeps its calls short: writes and batches are cut into
slices, indexing and exports run in a child on a copy (`edge_rebuild`, `edge_child`), fsyncs bypass Edge.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import qdrant_edge as edge

from app.errors import NoLexicalSide
from app.passages import edge_queries, lexical, payload
from app.passages.disk import allocated_bytes, remove_tree, require_space, sync_tree
from app.passages.edge_children import Children
from app.passages.edge_flush import Flusher
from app.passages.edge_folder import FIRST_SHARD, EdgeFolder, describe
from app.passages.edge_open import open_shard
from app.passages.edge_points import ids_of, new_terms, to_hit, to_payload, to_point
from app.passages.edge_rebuild import Rebuilder
from app.passages.edge_shard import Handle, Pace, ShardSlot, breathe, sync_log
from app.passages.export import is_complete
from app.passages.fusion import Ranking, cut, fuse
from app.passages.index_space import IndexSpace
from app.passages.lexical import LEXICAL
from app.passages.payload import DENSE, METADATA, point_id
from app.passages.store import Hashes, Hit, Passage, Point, StoredPassage, StoreInfo, Vector

if TYPE_CHECKING:
    from qdrant_client.models import Filter

READ_SLICE = 256  # points per call: 2 ms with payload and vectors
SEARCH_SLICE = 8  # searches per call: 8 ms at 16,000 passages with the index, 16 without
LOG_LIMIT = 20_000  # points in Edge's log before its own flush: a start repairs as many in about 1 s


class EdgeStore:
    """Makes `root` if missing. Raises DataDirLocked, IndexSpaceMismatch, Unavailable (not readable)."""

    def __init__(
        self,
        root: Path,
        index_space: IndexSpace,
        *,
        indexed_fields: Sequence[str] = (),
        index_after: int = 5_000,
    ) -> None:
        self._space = index_space
        self._folder = EdgeFolder(root)
        try:
            handle = open_shard(self._folder, index_space, indexed_fields)
        except BaseException:
            self._folder.close()
            raise
        self._slot = ShardSlot(handle)
        self._children = Children()
        self._write_pace, self._query_pace = Pace(64), Pace(4, target_s=0.008)
        self._flusher = Flusher(self._sync)
        self._rebuilder = Rebuilder(
            self._slot,
            self._folder,
            self._children,
            index_space,
            index_after,
            publish=lambda shard, counted: self._folder.write_current(
                index_space, shard, self._lexical_format(), counted
            ),
        )
        self._closing, self._closed = threading.Lock(), False
        self._rebuilder.look()

    @property
    def index_space(self) -> IndexSpace:
        return self._space

    @property
    def lexical(self) -> bool:
        with self._slot.reading() as live:
            return live.lexical

    # Writing

    def upsert(self, points: Sequence[Point], *, durable: bool = False) -> None:
        checked, with_terms = payload.last_of_each(points, self._space.dimension), self.lexical
        for taken in self._write_pace.slices(checked):
            made = [to_point(point, vector, with_terms=with_terms) for point, vector in taken]
            self._update(edge.UpdateOperation.upsert_points(made), ids_of(made))
        self._written(durable)

    def set_metadata(self, items: Sequence[tuple[Passage, str]]) -> int:
        latest = {point_id(passage.id): (passage, content_hash) for passage, content_hash in items}
        rewritten = 0
        for ids in Pace(32).slices(list(latest)):
            with self._slot.writing() as writer:
                for id, before in _languages(writer.handle, ids):
                    passage, content_hash = latest[id]
                    # Only for another language's rules, since a new vector takes the point out of its graph; and before
                    # the payload, so that a write that broke between the two is seen as undone and done again.
                    if writer.handle.lexical and before != lexical.language_of(passage.metadata):
                        writer.update(new_terms([passage]), [id])
                    told = to_payload(passage, content_hash)
                    writer.update(edge.UpdateOperation.overwrite_payload([id], told), [id])
                    self._folder.writes.add()
                    rewritten += 1
            breathe()
        self._written(False)
        return rewritten

    def delete(self, ids: Sequence[str], *, durable: bool = False) -> int:
        deleted = self._delete_points([point_id(id) for id in dict.fromkeys(ids)])
        self._written(durable, deleted)
        return deleted

    def delete_by_filter(self, filter: "Filter") -> int:
        translated = to_edge(filter)
        ids: list[UUID] = []
        cursor = None
        while True:
            request = edge.ScrollRequest(
                offset=cursor, limit=READ_SLICE, filter=translated, with_payload=False, with_vector=False
            )
            with self._slot.reading() as live:
                records, cursor = _scroll(live, request)
            ids += ids_of(records)
            if cursor is None:
                break
        deleted = self._delete_points(ids)
        self._written(False, deleted)
        return deleted

    def flush(self) -> None:
        self._flusher.wait()

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
        filter: "Filter | None" = None,
        with_vectors: bool = False,
    ) -> tuple[list[StoredPassage], str | None]:
        translated, at = to_edge(filter), payload.to_cursor(cursor)
        found: list[StoredPassage] = []
        while True:
            request = edge.ScrollRequest(
                offset=at,
                limit=min(READ_SLICE, limit - len(found)),
                filter=translated,
                with_payload=True,
                with_vector=[DENSE] if with_vectors else False,
            )
            with self._slot.reading() as live:
                records, at = _scroll(live, request)
            found += [payload.to_stored(one.payload, one.vector) for one in records]
            if at is None or len(found) >= limit:
                return found, None if at is None else str(at)

    def search(
        self,
        vector: Vector,
        *,
        limit: int,
        offset: int = 0,
        filter: "Filter | None" = None,
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
        filter: "Filter | None" = None,
        score_threshold: float | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> list[list[Hit]]:
        translated = to_edge(filter)
        requests = [
            edge_queries.by_vector(
                payload.checked_vector(one, self._space.dimension),
                limit=limit,
                offset=offset,
                filter=translated,
                score_threshold=score_threshold,
                exact=exact,
                with_vectors=with_vectors,
            )
            for one in vectors
        ]
        with self._slot.reading() as live:
            return [[to_hit(one) for one in found] for found in self._answers(live, requests)]

    def search_lexical(
        self,
        texts: Sequence[str],
        *,
        limit: int,
        offset: int = 0,
        filter: "Filter | None" = None,
        score_threshold: float | None = None,
    ) -> list[list[Hit]]:
        translated = to_edge(filter)
        with self._reading_lexical() as live:
            rankings = self._rankings(live, [edge_queries.by_words(text, translated) for text in texts])
            return self._hits(live, [cut(each, limit, offset, score_threshold) for each in rankings])

    def search_hybrid(
        self,
        vectors: Sequence[Vector],
        texts: Sequence[str],
        *,
        limit: int,
        offset: int = 0,
        filter: "Filter | None" = None,
        score_threshold: float | None = None,
        exact: bool = False,
    ) -> list[list[Hit]]:
        translated = to_edge(filter)
        checked = [payload.checked_vector(vector, self._space.dimension) for vector in vectors]
        with self._reading_lexical() as live:
            near = [edge_queries.nearest(vector, translated, exact) for vector in checked]
            words = [edge_queries.by_words(text, translated) for text in texts]
            rankings = self._rankings(live, near + words)
            both = zip(rankings[: len(near)], rankings[len(near) :], strict=True)
            return self._hits(live, [cut(fuse(*each), limit, offset, score_threshold) for each in both])

    def count(self, filter: "Filter | None" = None) -> int:
        request = edge.CountRequest(filter=to_edge(filter), exact=True)
        with self._slot.reading() as live:
            return int(live.shard.count(request))

    def info(self) -> StoreInfo:
        with self._slot.reading() as live:
            told = live.shard.info()
            return StoreInfo(
                passages=told.points_count,
                indexed=live.indexed(),
                segments=told.segments_count,
                writes=self._folder.writes.value,
                indexing=self._rebuilder.running,
            )

    # The whole

    def wait_indexed(self, timeout_s: float | None = None) -> bool:
        """Whether, within that time, all that was written before has been indexed as far as it has to be."""
        return self._rebuilder.wait(timeout_s)

    def export(self, folder: Path) -> None:
        if is_complete(folder):
            return
        build = self._folder.new_build()
        with self._children.turn:
            try:
                writes = self._slot.copy(build, track=False, note=lambda: self._folder.writes.value)
                space = orjson.dumps(self._space.to_dict()).decode()
                target = str(folder.absolute())
                self._children.run("export", str(build), target, "--space", space, "--writes", str(writes))
            finally:
                remove_tree(build)

    def snapshot(self, folder: Path, at_this_point: Callable[[], None]) -> None:
        folder.mkdir()

        def note() -> tuple[int, int]:
            at_this_point()
            with self._slot.reading() as live:
                return live.counted, self._folder.writes.value

        with self._children.turn:
            with self._slot.reading() as live:
                require_space(folder, allocated_bytes(live.folder))
            counted, writes = self._slot.copy(folder / FIRST_SHARD, track=False, note=note)
        lexical_format = self._lexical_format()
        describe(folder, self._space, FIRST_SHARD, lexical=lexical_format, counted=counted, writes=writes)

    def add_lexical(self, done: Callable[[int], None]) -> int:
        self._rebuilder.wait(None)  # a copy made before the vector has a name would have no place for it
        with self._slot.writing() as writer:
            writer.update(edge.UpdateOperation.create_sparse_vector(LEXICAL, edge.Modifier.Idf), [])
        added, cursor = 0, None
        while True:
            page, cursor = self.page(cursor, READ_SLICE)
            for taken in self._write_pace.slices([one.passage for one in page]):
                self._update(new_terms(taken), [point_id(passage.id) for passage in taken])
            added += len(page)
            done(added)
            self._flusher.written()
            if cursor is None:
                break
        self._flusher.wait(self._flusher.written())
        with self._slot.writing() as writer:
            # Counted anew from 0: a new vector took every point out of its graph.
            self._folder.write_current(self._space, writer.handle.folder, lexical.FORMAT, 0)
            writer.handle.lexical, writer.handle.counted = True, 0
        return added

    def interrupt(self) -> None:
        # The children first: the rebuilder may be waiting for one.
        self._children.close()
        self._rebuilder.close()

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self.interrupt()
        self._flusher.close()
        self._slot.close()
        self._folder.close()

    def _update(self, operation: "edge.UpdateOperation", ids: Sequence[UUID]) -> None:
        with self._slot.writing() as writer, self._write_pace.measured(len(ids)):
            writer.update(operation, ids)
            self._folder.writes.add()
        breathe()

    def _delete_points(self, ids: Sequence[UUID]) -> int:
        deleted = 0
        for taken in self._write_pace.slices(ids):
            with self._slot.writing() as writer:
                if there := _present(writer.handle, taken):
                    writer.update(edge.UpdateOperation.delete_points([*there]), there)
                    self._folder.writes.add()
                    deleted += len(there)
            breathe()
        return deleted

    def _written(self, durable: bool, deleted: int = 0) -> None:
        ticket = self._flusher.written()
        self._rebuilder.look(deleted)
        if durable:
            self._flusher.wait(ticket)

    def _sync(self) -> None:
        # The counter first: after power loss it may be ahead of the passages, never behind.
        self._folder.writes.sync()
        with self._slot.reading() as live:
            sync_log(live.folder)
            if live.unflushed > LOG_LIMIT:
                require_space(live.folder)
                sync_tree(live.folder)  # without the GIL, so that little is left for Edge to write
                # Edge's flush cuts its log: a copy under way might have the segments of before and the log of after.
                with self._slot.writing():
                    live.unflushed = 0
                    live.shard.flush()

    def _retrieve(self, ids: Sequence[str], with_payload: Any, with_vectors: bool) -> Iterator[Any]:
        wanted = [point_id(id) for id in dict.fromkeys(ids)]
        for start in range(0, len(wanted), READ_SLICE):
            taken: list[Any] = [*wanted[start : start + READ_SLICE]]
            with self._slot.reading() as live:
                yield from live.shard.retrieve(taken, with_payload, [DENSE] if with_vectors else False)

    def _lexical_format(self) -> int | None:
        return lexical.FORMAT if self.lexical else None

    @contextmanager
    def _reading_lexical(self) -> Iterator[Handle]:
        with self._slot.reading() as live:
            if not live.lexical:
                raise NoLexicalSide(lexical.MISSING)
            yield live

    def _answers(self, live: Handle, requests: list[Any]) -> Iterator[list[Any]]:
        for at in range(0, len(requests), SEARCH_SLICE):
            yield from self._query(live, requests[at : at + SEARCH_SLICE])

    def _rankings(self, live: Handle, requests: list[Any]) -> list[Ranking[UUID]]:
        return [[(one.id, one.score) for one in found] for found in self._answers(live, requests)]

    def _hits(self, live: Handle, pages: list[Ranking[UUID]]) -> list[list[Hit]]:
        """What is deleted meanwhile is left out."""
        wanted: list[Any] = list({point for page in pages for point, _ in page})
        slices = (wanted[at : at + READ_SLICE] for at in range(0, len(wanted), READ_SLICE))
        passages = {
            one.id: payload.to_passage(one.payload) for each in slices for one in live.shard.retrieve(each, True, False)
        }
        return [[Hit.of(passages[point], score) for point, score in page if point in passages] for page in pages]

    def _query(self, live: Handle, requests: list[Any]) -> Iterator[Any]:
        for taken in self._query_pace.slices(requests):
            with self._query_pace.measured(len(taken)):
                found = live.shard.query_batch(edge.QueryBatchRequest(list(taken)))
            yield from found


def _languages(handle: Handle, ids: Sequence[UUID]) -> list[tuple[UUID, str]]:
    """Those that are there, with the language by whose rules each is read."""
    records: list[Any] = handle.shard.retrieve([*ids], [f"{METADATA}.lang"], False)
    return [(record.id, lexical.language_of(record.payload.get(METADATA) or {})) for record in records]


def _present(handle: Handle, ids: Sequence[UUID]) -> list[UUID]:
    return ids_of(handle.shard.retrieve([*ids], False, False))


def _scroll(handle: Handle, request: "edge.ScrollRequest") -> tuple[list[Any], UUID | None]:
    records, cursor = handle.shard.scroll(request)
    return records, None if cursor is None else UUID(str(cursor))


def to_edge(filter: "Filter | None") -> "edge.Filter | None":
    """Raises UnsupportedFilter or InvalidField. Most searches have no filter, whose classes take a second to import."""
    if filter is None:
        return None
    from app.passages import edge_filters

    return edge_filters.to_edge(filter)
