"""A search: take one encoder from the slot, embed the query, ask the passage store. Knows no HTTP.

By vector (dense), by words (lexical, where no encoder has a part) or by both (hybrid).
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.encoders.artifacts import BASE_KEY
from app.encoders.loaded import LoadedEncoder
from app.encoders.pool import EncoderPool
from app.encoders.routes import Asked, find_route
from app.encoders.slot import Active, Slot
from app.errors import BadInput, EncoderNotFound, EncoderNotResident, Overloaded, Unavailable
from app.guarding import Seen
from app.interleaving import CANARY, team_draft
from app.passages import Hit, PassageStore, demanded, parse_filter
from app.passages.fusion import DEPTH
from app.passages.lexical import highlights
from app.registry import EncoderState, MatchFilter, Registry
from app.registry.experiments import Role
from app.registry.signals import Signal
from app.spans import SEARCH_PASSAGES, span, tell
from app.wire.search import Mode

if TYPE_CHECKING:
    from qdrant_client.models import Filter

SEARCH_THREADS = 8
LOAD_THREADS = 4
COMPARE_DEPTH = 100  # how far a comparison looks for a hit in the other encoder's answer
NO_VECTORS = np.empty((0, 0), np.float32)


NOTHING = Asked()
Rule = Literal["active", "canary", "interleaved", "named", "route", "route-language"]
Sticky = Callable[[str], str | None]


def nobody(_sticky_by: str) -> None:
    """Stays with the active encoder, whatever requests are split by."""


class Chosen(NamedTuple):
    encoder: LoadedEncoder
    generation: int | None  # that put it there; None where the request named an encoder that is not active
    rule: Rule  # what chose it
    unit: str | None = None  # who asked, where a split tells requests apart
    other: LoadedEncoder | None = None  # that answers together with it
    route: str | None = None  # that took the request


class Draft(NamedTuple):
    """With whose hits an answer's were interleaved, and what its coins were drawn from: its next page goes on so."""

    encoder: str
    seed: str


class Began(NamedTuple):
    """Who answered the first page, as `Chosen` says it; the next ones go on with that, whatever is active or routed."""

    encoder: str
    generation: int | None
    rule: Rule
    route: str | None
    draft: Draft | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drafted:
    other: LoadedEncoder
    seed: str
    teams: str  # a letter for each hit (`app.interleaving`)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Several texts share everything else, and one run of the encoder."""

    texts: tuple[str, ...]
    mode: Mode = "dense"
    limit: int = 10
    offset: int = 0
    filter: dict[str, Any] | None = None
    score_threshold: float | None = None
    encoder: str | LoadedEncoder | None = None  # None: that of a route, or the active one
    asked: Asked = NOTHING  # what routes look at, but for the filter
    exact: bool = False
    sticky: Sticky = nobody  # who asks, where a part of the requests gets another encoder
    interleave: bool = False  # whether two encoders may answer it together
    began: Began | None = None  # a paging did, and this is a later page of it


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
    route: str | None
    unit: str | None  # who asked, as a split tells it
    drafted: Drafted | None
    query_vectors: NDArray[np.float32]  # (texts, dim), or none where no encoder had a part
    encode_ms: float
    search_ms: float
    total_ms: float


class Retrieval:
    """`took` hears how many seconds the passage store needed for each search, `seen` how a canary does beside the
    active encoder."""

    def __init__(
        self,
        registry: Registry,
        pool: EncoderPool,
        slot: Slot,
        store: PassageStore,
        took: Callable[[float], None],
        seen: Seen,
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
        self._seen = seen
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
        chosen = await self._choose(query, conditions)
        if chosen.unit is None or chosen.other is not None:
            return await self._answer(query, chosen, conditions, started)
        role: Role = "canary" if chosen.rule == "canary" else "active"
        timed = len(query.texts) == 1 and not chosen.encoder.remembers(list(query.texts))
        with self._watched(chosen, role) as watched:
            answer = await self._answer(query, chosen, conditions, started)
            # Without a threshold only the filter and the offset leave nothing: no encoder has a part in that.
            watched.empty = query.score_threshold is not None and not query.offset and not any(answer.hits)
            watched.encode_s = answer.encode_ms / 1000 if timed else None
            if query.mode == "dense" and not query.offset:
                watched.scores = [found[0].score for found in answer.hits if found]
            return answer

    async def _answer(self, query: Query, chosen: Chosen, conditions: "Filter | None", started: float) -> Answer:
        vectors, alone = await self._embed(chosen, query)
        chosen = chosen if not alone else chosen._replace(rule="active", unit=None, other=None)
        encoded = time.perf_counter()
        deep = query if chosen.other is None else replace(query, limit=query.offset + query.limit, offset=0)
        with span(SEARCH_PASSAGES, {"adiabat.mode": query.mode, "adiabat.limit": deep.limit}):
            hits = await asyncio.get_running_loop().run_in_executor(
                self._searchers, partial(self._look_up, vectors, deep, conditions)
            )
            tell({"adiabat.hits": sum(map(len, hits))})
        drafted = None
        if chosen.other is not None:
            hits, drafted = _interleaved(hits, chosen.other, query)
        done = time.perf_counter()
        self._took(done - encoded)
        return Answer(
            hits=hits,
            encoder=chosen.encoder,
            generation=chosen.generation,
            rule=chosen.rule,
            route=chosen.route,
            unit=chosen.unit,
            drafted=drafted,
            query_vectors=vectors[: len(query.texts)],
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
        whole = replace(query, limit=DEPTH, offset=0, score_threshold=None, sticky=nobody, interleave=False, began=None)
        # The very encoder that answered: by its name it might be gone by now, if a route had it.
        legs = [replace(whole, mode="dense", encoder=each) for each in (answer.encoder, BASE_KEY)]
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

    async def _choose(self, query: Query, conditions: "Filter | None") -> Chosen:
        if query.began is not None:
            return await self._go_on(query.began)
        if isinstance(query.encoder, LoadedEncoder):
            return Chosen(query.encoder, None, "named")
        if query.encoder is not None:
            return await self.encoder(query.encoder)
        return self._by_rule(self._slot.current, query, conditions)

    async def _go_on(self, began: Began) -> Chosen:
        encoder = (await self.encoder(began.encoder)).encoder
        other = (await self.encoder(began.draft.encoder)).encoder if began.draft else None
        return Chosen(encoder, began.generation, began.rule, other=other, route=began.route)

    async def _embed(self, chosen: Chosen, query: Query) -> tuple[NDArray[np.float32], bool]:
        """With each encoder that answers, its vectors after one another; and whether the active one is left alone.

        A canary that fails beside it, whatever it is, fails no search; but a page that went on would be another one.
        """
        if query.mode == "lexical":
            return NO_VECTORS, False
        texts = list(query.texts)
        if chosen.other is None:
            return await chosen.encoder.embed_queries(texts), False
        embed = self._embed_watched if query.began is None else _embed
        ours, theirs = await asyncio.gather(
            embed(chosen, "active", chosen.encoder, texts),
            embed(chosen, "canary", chosen.other, texts),
            return_exceptions=True,
        )
        if isinstance(ours, BaseException):
            raise ours
        if isinstance(theirs, Exception) and query.began is None:
            return ours, True
        if isinstance(theirs, BaseException):
            raise theirs
        return np.concatenate([ours, theirs]), False

    async def _embed_watched(
        self, chosen: Chosen, role: Role, encoder: LoadedEncoder, texts: list[str]
    ) -> NDArray[np.float32]:
        timed, started = not encoder.remembers(texts), time.perf_counter()
        with self._watched(chosen, role) as watched:
            vectors = await encoder.embed_queries(texts)
            watched.encode_s = time.perf_counter() - started if timed else None
            return vectors

    @contextmanager
    def _watched(self, chosen: Chosen, role: Role) -> Iterator["_Watched"]:
        """Whether what is done in this block fails, and what it tells; refusals are nobody's failure."""
        watched, generation = _Watched(), chosen.generation or 0
        try:
            yield watched
        except BadInput:
            raise
        except Exception:
            self._seen.saw(generation, role, Signal(requests=1, errors=1))
            raise
        timed, took_s = watched.encode_s is not None, watched.encode_s or 0.0
        this = Signal(
            requests=1,
            empty=watched.empty,
            timed=timed,
            seconds=took_s,
            seconds_squared=took_s**2,
            scored=len(watched.scores),
            score=sum(watched.scores),
            score_squared=sum(score**2 for score in watched.scores),
        )
        self._seen.saw(generation, role, this)

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

    def _by_rule(self, active: Active, query: Query, conditions: "Filter | None") -> Chosen:
        """Where no encoder is named: a route, else the canary or the active encoder. Raises `RouteNotFound`."""
        if query.mode != "lexical" and (active.routes or query.asked.route):
            demands = demanded(conditions) if conditions else ()
            asked = replace(query.asked, demands=tuple(MatchFilter(key=key, value=value) for key, value in demands))
            if (loaded := find_route(active.routes, asked)) is not None:
                generation, name = loaded.route.generation, loaded.route.name
                if loaded.base is not None and loaded.stays_on_base(asked):
                    return Chosen(loaded.base, generation, "route-language", route=name)
                return Chosen(loaded.encoder, generation, "route", route=name)
        if active.split is None:
            return Chosen(active.encoder, active.generation, "active")
        unit = active.split.unit(query.sticky(active.split.sticky_by))
        if active.split.interleave:
            if query.interleave and active.split.takes(unit):
                return Chosen(active.encoder, active.generation, "interleaved", unit, active.split.encoder)
            return Chosen(active.encoder, active.generation, "active")
        if active.split.takes(unit):
            return Chosen(active.split.encoder, active.generation, "canary", unit)
        return Chosen(active.encoder, active.generation, "active", unit)

    async def encoder(self, named: str | None) -> Chosen:
        """The encoder of that name, or the active one, in memory when this returns.

        Raises `EncoderNotFound`, `EncoderBroken`, `EncoderNotResident`.
        """
        active = self._slot.current
        if named is None:
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


async def _embed(_chosen: Chosen, _role: Role, encoder: LoadedEncoder, texts: list[str]) -> NDArray[np.float32]:
    return await encoder.embed_queries(texts)


@dataclass(slots=True)
class _Watched:
    empty: bool = False
    encode_s: float | None = None  # None where it tells nothing of the encoder
    scores: Sequence[float] = ()  # of the best hits, where the encoder alone ranked them


def _interleaved(hits: list[list[Hit]], other: LoadedEncoder, query: Query) -> tuple[list[list[Hit]], Drafted]:
    """Each hit with the score that its own encoder gave it."""
    ours, theirs = hits
    seed = query.began.draft.seed if query.began and query.began.draft else secrets.token_hex(8)
    ids, teams = team_draft([hit.id for hit in ours], [hit.id for hit in theirs], seed, query.offset + query.limit)
    of_ours, of_theirs = ({hit.id: hit for hit in each} for each in hits)
    drafted = [(of_theirs if team == CANARY else of_ours)[id] for id, team in zip(ids, teams, strict=True)]
    return [drafted[query.offset :]], Drafted(other=other, seed=seed, teams=teams[query.offset :])


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
