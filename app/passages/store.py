"""The passage store port: what the service needs of a vector store, in the project's words.

Adapters: `edge.EdgeStore` (Qdrant Edge in this process) and `qdrant.QdrantStore` (a Qdrant server). Every
method is synchronous and may be called from any thread; asynchronous callers run them in threads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from app.passages.index_space import IndexSpace

if TYPE_CHECKING:
    from qdrant_client.models import Filter

Vector = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """What a user gave."""

    id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Point:
    """A passage with its vector (dim,). `content_hash` covers all that went into the vector."""

    passage: Passage
    content_hash: str
    vector: Vector


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredPassage:
    """A passage as it lies in the store; `vector` (dim,) only where it was asked for."""

    passage: Passage
    content_hash: str
    vector: Vector | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hit:
    """One answer of a search; `vector` (dim,) only where it was asked for."""

    id: str
    score: float
    passage: Passage
    vector: Vector | None = None

    @classmethod
    def of(cls, passage: Passage, score: float) -> "Hit":
        return cls(id=passage.id, score=score, passage=passage)


class Hashes(NamedTuple):
    """Of a stored passage: of what was embedded, and of title, text and metadata (`payload.payload_hash`)."""

    content: str
    payload: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreInfo:
    """Figures of a store. `writes` grows with every write and never goes back, restarts included."""

    passages: int
    indexed: int
    segments: int
    writes: int
    indexing: bool


class PassageStore(Protocol):
    """Filters come from `filters.parse_filter`. Any method may raise Unavailable."""

    @property
    def index_space(self) -> IndexSpace: ...

    @property
    def lexical(self) -> bool:
        """Whether the words of all passages are there to be searched; a collection made before has to be given them."""

    def upsert(self, points: Sequence[Point], *, durable: bool = False) -> None:
        """Writes the points; an id that is there is replaced, of a repeated id the last counts.

        `durable` waits until power loss cannot undo it. Raises InvalidField, before anything is written, for
        a vector of another dimension or with a value that is not finite.
        """

    def set_metadata(self, items: Sequence[tuple[Passage, str]]) -> int:
        """Rewrites title, text, metadata and content hash of stored passages, vectors untouched.

        Returns how many of them were there; the others are left alone.
        """

    def delete(self, ids: Sequence[str], *, durable: bool = False) -> int:
        """Returns how many of them were there."""

    def delete_by_filter(self, filter: "Filter") -> int:
        """Returns how many passages were deleted. Raises UnsupportedFilter."""

    def fetch(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[StoredPassage]:
        """In the order of `ids`; one that is not there is absent."""

    def content_hashes(self, ids: Sequence[str]) -> dict[str, Hashes]:
        """What ingest compares to see which passages are new, changed, or changed in their payload alone."""

    def page(
        self, cursor: str | None, limit: int, filter: "Filter | None" = None, with_vectors: bool = False
    ) -> tuple[list[StoredPassage], str | None]:
        """The next `limit` passages and the cursor that goes on after them, None at the end.

        The order is fixed, but not the ids'. Raises InvalidField for a cursor that no page returned.
        """

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
        """The nearest passages to `vector` (dim,), best first; `exact` compares with every one."""

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
        """`search` for each of the vectors."""

    def search_lexical(
        self,
        texts: Sequence[str],
        *,
        limit: int,
        offset: int = 0,
        filter: "Filter | None" = None,
        score_threshold: float | None = None,
    ) -> list[list[Hit]]:
        """For each text the passages that share words with it, by BM25, best first, `fusion.DEPTH` at most.

        Raises NoLexicalSide.
        """

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
        """The best `fusion.DEPTH` of `search` and of `search_lexical`, fused (`fusion.fuse`), as many at most.

        Raises NoLexicalSide.
        """

    def add_lexical(self, done: Callable[[int], None]) -> int:
        """Makes the lexical side of a collection that has none, from the stored texts; `done` hears how many so far.

        Nobody else may write meanwhile. It may be repeated, and has to be if it broke. Returns the number of passages.
        """

    def count(self, filter: "Filter | None" = None) -> int: ...

    def info(self) -> StoreInfo: ...

    def flush(self) -> None:
        """Returns when power loss can undo no write acknowledged before."""

    def export(self, folder: Path) -> None:
        """Writes all vectors, ids and groups to `folder` (see `export.py`); a complete one is kept."""

    def snapshot(self, folder: Path, at_this_point: Callable[[], None]) -> None:
        """Writes to `folder`, which must not exist, what a store opened there goes on with.

        No write is between what is copied and the moment of `at_this_point`; searches go on. Raises Conflict where
        the store is not this process's own.
        """

    def interrupt(self) -> None:
        """Ends background work for good: an export under way raises Unavailable. To be followed by `close`."""

    def close(self) -> None:
        """Ends background work and releases the store; later calls raise Unavailable."""
