"""A search: take one encoder from the slot, embed the query, ask the passage store. Knows no HTTP.

By vector (dense), by words (lexical, where no encoder has a part) or by both (hybrid).
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.encoders.artifacts import BASE_KEY
from app.encoders.loaded import LoadedEncoder
from app.encoders.pool import EncoderPool
from app.encoders.slot import Slot
from app.errors import EncoderNotFound, EncoderNotResident, Overloaded, Unavailable
from app.passages import Hit, PassageStore, parse_filter
from app.passages.fusion import DEPTH
from app.passages.lexical import highlights
from app.registry import EncoderState, Registry
from app.wire.search import Mode

if TYPE_CHECKING:
    from qdrant_client.models import Filter

SEARCH_THREADS = 8
LOAD_THREADS = 4
COMPARE_DEPTH = 100  # how far a comparison looks for a hit in the other encoder's answer
NO_VECTORS = np.empty((0, 0), np.float32)


Rule = Literal["active", "canary", "named"]
Sticky = Callable[[str], str | None]


def nobody(_sticky_by: str) -> None:
    """Stays with the active encoder, whatever requests are split by."""


class Chosen(NamedTuple):
    encoder: LoadedEncoder
    generation: int | None  # None where the request named an encoder that is not active
    rule: Rule  # what chose it


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Several texts share everything else, and one run of the encoder."""

    texts: tuple[str, ...]
    mode: Mode = "dense"
    limit: int = 10
    offset: int = 0
    filter: dict[str, Any] | None = None
    score_threshold: float | None = None
    encoder: str | None = None  # None: the active one
    generation: int | None = None  # what the answer reports where `encoder` was active when a paging began
    exact: bool = False
    sticky: Sticky = nobody  # who asks, where a part of the requests gets another encoder


class Place(NamedTuple):
    """Where a passage lies in an answer, from 1."""

    rank: int
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """Where passages lie by the answer's encoder, by words and by the base, each among the first `DEPTH`."""

    dense: dict[str, Place]
    lexical: dict[str, Place] | None  # None where the collection keeps no words
    base: LoadedEncoder
    by_base: dict[str, Place]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    hits: list[list[Hit]]  # one list per text
    encoder: LoadedEncoder  # the one chosen, also where the mode had no part for it
    generation: int | None  # None where the request named its encoder
    rule: Rule
    query_vectors: NDArray[np.float32]  # (texts, dim), or none where no encoder had a part
    encode_ms: float
    search_ms: float
    total_ms: float


class Retrieval:
    """`took` hears how many seconds the passage store needed for each search."""

    def __init__(
        self,
        registry: Registry,
        pool: EncoderPool,
        slot: Slot,
        store: PassageStore,
        took: Callable[[float], None],
        *,
        max_waiting: int,
        load_on_demand: bool = True,
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._slot = slot
        self._store = store
        self._took = took
        self._max_waiting = max_waiting
        self._under_way = 0  # texts; the event loop's alone
        self._load_on_demand = load_on_demand
        # Apart from one another: encoders that load must not keep searches waiting.
        self._searchers = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        self._loaders = ThreadPoolExecutor(LOAD_THREADS, thread_name_prefix="wait-for-load")

    async def search(self, query: Query) -> Answer:
        """Raises what `encoder` does, and `UnsupportedFilter`, `Overloaded`, `Unavailable`."""
        # For the store too: where it falls behind the encoder, what waits for it would be without a bound.
        if self._under_way and self._under_way + len(query.texts) > self._max_waiting:
            raise Overloaded(f"{self._under_way} queries are being answered; try again in a moment.")
        self._under_way += len(query.texts)
        try:
            return await self._search(query)
        finally:
            self._under_way -= len(query.texts)

    async def _search(self, query: Query) -> Answer:
        started = time.perf_counter()
        conditions = parse_filter(query.filter)
        # One reference for the whole request: a switch from here on concerns the next one.
        encoder, generation, rule = await self.encoder(query.encoder, query.sticky)
        vectors = NO_VECTORS if query.mode == "lexical" else await encoder.embed_queries(list(query.texts))
        encoded = time.perf_counter()
        hits = await asyncio.get_running_loop().run_in_executor(
            self._searchers, partial(self._look_up, vectors, query, conditions)
        )
        done = time.perf_counter()
        self._took(done - encoded)
        return Answer(
            hits=hits,
            encoder=encoder,
            generation=generation if query.generation is None else query.generation,
            rule=rule,
            query_vectors=vectors,
            encode_ms=(encoded - started) * 1000,
            search_ms=(done - encoded) * 1000,
            total_ms=(done - started) * 1000,
        )

    async def compare(self, query: Query, other: str) -> tuple[Answer, Answer]:
        """The answer, and the one that the encoder `other` gives, looked at deep enough to rank the hits."""
        deeper = replace(query, encoder=other, limit=max(query.limit, COMPARE_DEPTH))
        ours, theirs = await asyncio.gather(self.search(query), self.search(deeper))
        return ours, theirs

    async def explain(self, query: Query, answer: Answer) -> Explained:
        """What `answer` to the only text of `query` is made of."""
        whole = replace(query, limit=DEPTH, offset=0, score_threshold=None)
        legs = [replace(whole, mode="dense", encoder=key) for key in (answer.encoder.record.key, BASE_KEY)]
        if self._store.lexical:
            legs.append(replace(whole, mode="lexical", encoder=None))
        dense, by_base, *lexical = await asyncio.gather(*map(self.search, legs))
        return Explained(
            dense=_places(dense),
            lexical=_places(lexical[0]) if lexical else None,
            base=by_base.encoder,
            by_base=_places(by_base),
        )

    async def highlight(self, query: Query, answer: Answer) -> list[list[tuple[int, int]]]:
        """Where in the text of each hit the words of the only text of `query` are."""
        passages = [hit.passage for hit in answer.hits[0]]
        return await asyncio.get_running_loop().run_in_executor(self._searchers, highlights, query.texts[0], passages)

    def _look_up(self, vectors: NDArray[np.float32], query: Query, conditions: "Filter | None") -> list[list[Hit]]:
        if query.mode == "lexical":
            return self._store.search_lexical(
                query.texts,
                limit=query.limit,
                offset=query.offset,
                filter=conditions,
                score_threshold=query.score_threshold,
            )
        if query.mode == "hybrid":
            return self._store.search_hybrid(
                list(vectors),
                query.texts,
                limit=query.limit,
                offset=query.offset,
                filter=conditions,
                score_threshold=query.score_threshold,
                exact=query.exact,
            )
        return self._store.search_batch(
            list(vectors),
            limit=query.limit,
            offset=query.offset,
            filter=conditions,
            score_threshold=query.score_threshold,
            exact=query.exact,
        )

    async def encoder(self, named: str | None, sticky: Sticky = nobody) -> Chosen:
        """The encoder of that name, or for `sticky`, in memory when this returns.

        Raises `EncoderNotFound`, `EncoderBroken`, `EncoderNotResident`.
        """
        active = self._slot.current
        if named is None:
            if active.split is not None and active.split.takes(sticky(active.split.sticky_by)):
                return Chosen(active.split.encoder, active.generation, "canary")
            return Chosen(active.encoder, active.generation, "active")
        if named == active.encoder.record.key:
            return Chosen(active.encoder, active.generation, "named")
        try:
            record = await asyncio.to_thread(self._registry.encoders.find, named)
        except Unavailable:  # which version is the newest only the registry knows, but not what this one is
            known = next((each for each in self._pool.resident() if each.record.key == named), None)
            if known is None:
                raise
            return Chosen(known, None, "named")
        if record.state is EncoderState.DELETED:
            raise EncoderNotFound(f"{record.key} was deleted.")
        resident = self._pool.peek(record.id)
        if resident is not None:
            return Chosen(resident, None, "named")
        if not self._load_on_demand:
            raise EncoderNotResident(
                f"{record.key} is not in memory, and this service loads none for a request (ADIABAT_LOAD_ON_DEMAND=0): "
                "activate it, or name one that was active lately."
            )
        loading = asyncio.get_running_loop().run_in_executor(self._loaders, self._pool.get, record)
        return Chosen(await loading, None, "named")


def _places(answer: Answer) -> dict[str, Place]:
    return {hit.id: Place(rank, hit.score) for rank, hit in enumerate(answer.hits[0], 1)}


def probe_overlap(store: PassageStore) -> Callable[[NDArray[np.float32], NDArray[np.float32]], float | None]:
    """How admission compares two encoders on what is stored: mean share of common ids in the top 10."""

    def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float | None:
        if store.count() == 0:
            return None
        tops = [
            [{hit.id for hit in hits} for hits in store.search_batch(list(vectors), limit=10, exact=True)]
            for vectors in (a, b)
        ]
        return float(np.mean([len(x & y) / len(y) for x, y in zip(*tops, strict=True)]))

    return overlap
