"""A loaded encoder: an immutable version in memory, verified, with its own micro-batching dispatcher."""

import logging
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.encoders import memory
from app.encoders.artifacts import ArtifactStore
from app.encoders.digest import digest_encoder
from app.encoders.dispatch import RUNS, Dispatcher, Observer, guessed_tokens
from app.encoders.engine import Engine, Precision, chosen, load_engine
from app.encoders.overlay import EncoderFiles
from app.encoders.probes import PROBE_TEXTS, check_recorded
from app.encoders.query_cache import QueryCache, cache_key
from app.encoders.spec import EncoderSpec, read_spec
from app.errors import EncoderBroken, SourceRefused
from app.registry import EncoderRecord
from app.spans import EMBED_QUERIES, Attributes, span, tell

log = logging.getLogger("adiabat.encoders")

MEND = "Restore a backup ('adiabat restore FILE'), or register the encoder again."
WARM_ROUNDS = 3
TURN_TEXTS, TURN_TOKENS = 32, 1_024  # at most: one run of the engine, 50 to 150 ms of MiniLM on two cores


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    kind: str
    precision: Precision
    threads: int
    map_weights: bool
    max_waiting: int
    max_wait_s: float


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True, eq=False)
class LoadedEncoder:
    """Closes itself when its last reader lets go: nobody can be using it then."""

    record: EncoderRecord
    spec: EncoderSpec
    dispatcher: Dispatcher
    cache: QueryCache
    load_ms: float
    warmup_ms: float
    weights_bytes: int
    shared_bytes: Mapping[str, int]

    async def embed_queries(self, texts: list[str]) -> NDArray[np.float32]:
        """Query vectors, shape (n, dim), perhaps read-only, the query prompt applied. Raises `Overloaded`.

        A text that was asked before costs nothing while the cache has it.
        """
        if not self.cache.max_bytes:
            return await self._embed(texts)
        keys = [cache_key(self.record.digest, text) for text in texts]
        rows = self.cache.find(keys)
        tell({"adiabat.texts_cached": len(rows)})
        if missing := {key: text for key, text in zip(keys, texts, strict=True) if key not in rows}:
            # A caller that leaves ends this here: what it waited for is not kept.
            fresh = await self._embed(list(missing.values()))
            made = {key: vector.tobytes() for key, vector in zip(missing, fresh, strict=True)}
            self.cache.keep(made)
            rows |= made
        return np.frombuffer(b"".join(rows[key] for key in keys), np.float32).reshape(len(texts), -1)

    def remembers(self, texts: list[str]) -> bool:
        """Whether they cost no run of the engine now."""
        return all(self.cache.holds(cache_key(self.record.digest, text)) for text in texts)

    async def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Many texts take turns with what others ask meanwhile."""
        turns = in_turns(texts, self.spec.max_length)
        return np.concatenate([await self._embed_turn(turn, goes_on=n > 0) for n, turn in enumerate(turns)])

    async def _embed_turn(self, texts: list[str], *, goes_on: bool) -> NDArray[np.float32]:
        name, version = self.record.name, self.record.version
        by: Attributes = {"adiabat.encoder.name": name, "adiabat.encoder.version": version, "adiabat.texts": len(texts)}
        with span(EMBED_QUERIES, by):
            return await self.dispatcher.embed_async(texts, self.spec.query_prompt, goes_on=goes_on)

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens that the encoder sees of each query, its prompt and the special ones included."""
        return self.dispatcher.lengths(texts, self.spec.query_prompt)


def in_turns(texts: Sequence[str], max_length: int) -> Iterator[list[str]]:
    """In their order; how many tokens a text has is guessed."""
    turn: list[str] = []
    room = TURN_TOKENS
    for text in texts:
        tokens = min(guessed_tokens(text), max_length)
        if turn and (len(turn) == TURN_TEXTS or tokens > room):
            yield turn
            turn, room = [], TURN_TOKENS
        turn.append(text)
        room -= tokens
    yield turn


class LoadObserver(Observer, Protocol):
    """Hears of loads, and then of the encoder's runs."""

    def loaded(self, load_ms: float, warmup_ms: float) -> None: ...


def load_encoder(
    artifacts: ArtifactStore,
    record: EncoderRecord,
    settings: EngineSettings,
    cache: QueryCache,
    observer: LoadObserver,
) -> LoadedEncoder:
    """Read, verify and warm `record`'s artifact. Raises `EncoderBroken`; nothing outside has changed then."""
    try:
        loaded = _load(artifacts, record, settings, cache, observer)
    except (OSError, SourceRefused) as error:
        raise EncoderBroken(f"{record.key}: its artifact cannot be loaded ({error}).") from error
    memory.give_back()  # what reading and checking took
    observer.loaded(loaded.load_ms, loaded.warmup_ms)
    return loaded


def _load(
    artifacts: ArtifactStore, record: EncoderRecord, settings: EngineSettings, cache: QueryCache, observer: Observer
) -> LoadedEncoder:
    started = time.perf_counter()
    try:
        files, spec, recorded = _registered(artifacts, record)
    except EncoderBroken:
        if not artifacts.renew(record.key):
            raise
        files, spec, recorded = _registered(artifacts, record)
    try:
        engine, loaded_at = _warm_engine(artifacts, record, files, spec, settings, recorded)
    except EncoderBroken as error:  # its files are whole: what is damaged may be the engine's copy of them
        if chosen(settings.kind, settings.precision) == "torch":
            raise
        log.warning("%s: %s It is tried once more with the engine's weights made anew.", record.key, error.detail)
        artifacts.forget_weights(record.key)
        engine, loaded_at = _warm_engine(artifacts, record, files, spec, settings, recorded)
    warm_at = time.perf_counter()
    dispatcher = Dispatcher(engine, max_waiting=settings.max_waiting, max_wait_s=settings.max_wait_s, observer=observer)
    loaded = LoadedEncoder(
        record=record,
        spec=spec,
        dispatcher=dispatcher,
        cache=cache,
        load_ms=(loaded_at - started) * 1000,
        warmup_ms=(warm_at - loaded_at) * 1000,
        weights_bytes=engine.weights_bytes,
        shared_bytes=engine.shared_bytes,
    )
    weakref.finalize(loaded, _close_aside, dispatcher).atexit = False
    return loaded


def _registered(
    artifacts: ArtifactStore, record: EncoderRecord
) -> tuple[EncoderFiles, EncoderSpec, NDArray[np.float32]]:
    """What was registered, with its probe vectors. Raises `EncoderBroken` where it is not that any more."""
    try:
        files = artifacts.files(record.key)
        spec = read_spec(files)
        digest = digest_encoder(files, spec)
        recorded = artifacts.probe_vectors(record.key)
    except (OSError, EncoderBroken, SourceRefused) as error:
        raise EncoderBroken(f"The artifact of {record.key} cannot be read: {error} {MEND}") from error
    if digest != record.digest:
        raise EncoderBroken(
            f"{record.key}: its files have digest {digest}, {record.digest} was registered: they were changed or "
            f"damaged. {MEND}"
        )
    return files, spec, recorded


def _warm_engine(
    artifacts: ArtifactStore,
    record: EncoderRecord,
    files: EncoderFiles,
    spec: EncoderSpec,
    settings: EngineSettings,
    recorded: NDArray[np.float32],
) -> tuple[Engine, float]:
    """An engine that embeds the probe texts as `recorded`, and when it was loaded. Raises `EncoderBroken`."""
    engine = load_engine(
        files,
        spec,
        kind=settings.kind,
        precision=settings.precision,
        lanes=RUNS,
        threads=settings.threads,
        map_weights=settings.map_weights,
        graphs_dir=artifacts.graphs,
        weights_dir=artifacts.weights,
    )
    loaded_at = time.perf_counter()
    try:
        for _ in range(WARM_ROUNDS):
            vectors = engine.embed(list(PROBE_TEXTS), spec.query_prompt)
            cosine = check_recorded(vectors, recorded, settings.precision)
    except BaseException:
        engine.close()
        raise
    if settings.precision != "fp32":
        log.info("%s runs on %s in %s, lowest cosine to fp32 %.6f", record.key, engine.name, settings.precision, cosine)
    return engine, loaded_at


def _close_aside(dispatcher: Dispatcher) -> None:
    """Whoever let go last may be the event loop: it must not wait for the dispatcher's thread."""
    threading.Thread(target=_close, args=(dispatcher,), name="unload-encoder").start()


def _close(dispatcher: Dispatcher) -> None:
    dispatcher.close()
    memory.give_back()
