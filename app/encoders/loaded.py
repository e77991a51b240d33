"""A loaded encoder: an immutable version in memory, verified, with its own micro-batching dispatcher."""

import threading
import time
import weakref
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.encoders.artifacts import ArtifactStore
from app.encoders.digest import digest_encoder
from app.encoders.dispatch import Dispatcher, Observer
from app.encoders.engine import load_engine
from app.encoders.probes import PROBE_TEXTS, check_recorded
from app.encoders.spec import EncoderSpec, read_spec
from app.errors import EncoderBroken, SourceRefused
from app.registry import EncoderRecord

WARM_ROUNDS = 3
TURN_TEXTS = 32  # one run of the engine, some 50 ms of MiniLM on two cores


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    kind: str
    threads: int
    max_waiting: int


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True, eq=False)
class LoadedEncoder:
    """Closes itself when its last reader lets go: nobody can be using it then."""

    record: EncoderRecord
    spec: EncoderSpec
    dispatcher: Dispatcher
    load_ms: float
    warmup_ms: float
    weights_bytes: int

    async def embed_queries(self, texts: list[str]) -> NDArray[np.float32]:
        """Query vectors, shape (n, dim), the query prompt applied. Raises `Overloaded`.

        Many texts take turns with what others ask meanwhile.
        """
        turns = [texts[at : at + TURN_TEXTS] for at in range(0, len(texts), TURN_TEXTS)]
        return np.concatenate([await self.dispatcher.embed_async(turn, self.spec.query_prompt) for turn in turns])

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens that the encoder sees of each query, its prompt and the special ones included."""
        return self.dispatcher.lengths(texts, self.spec.query_prompt)


class LoadObserver(Observer, Protocol):
    """Hears of loads, and then of the encoder's runs."""

    def loaded(self, load_ms: float, warmup_ms: float) -> None: ...


def load_encoder(
    artifacts: ArtifactStore, record: EncoderRecord, settings: EngineSettings, observer: LoadObserver
) -> LoadedEncoder:
    """Read, verify and warm `record`'s artifact. Raises `EncoderBroken`; nothing outside has changed then."""
    try:
        loaded = _load(artifacts, record, settings, observer)
    except (OSError, SourceRefused) as error:
        raise EncoderBroken(f"{record.key}: its artifact cannot be loaded ({error}).") from error
    observer.loaded(loaded.load_ms, loaded.warmup_ms)
    return loaded


def _load(
    artifacts: ArtifactStore, record: EncoderRecord, settings: EngineSettings, observer: Observer
) -> LoadedEncoder:
    started = time.perf_counter()
    files = artifacts.files(record.key)
    spec = read_spec(files)
    digest = digest_encoder(files, spec)
    if digest != record.digest:
        raise EncoderBroken(
            f"{record.key}: its files have digest {digest}, {record.digest} was registered: they were changed or "
            "damaged. Restore the folder from a backup, or register the encoder again."
        )
    engine = load_engine(
        files,
        spec,
        kind=settings.kind,
        threads=settings.threads,
        graphs_dir=artifacts.graphs,
        weights_dir=artifacts.weights,
    )
    loaded_at = time.perf_counter()
    try:
        for _ in range(WARM_ROUNDS):
            vectors = engine.embed(list(PROBE_TEXTS), spec.query_prompt)
            check_recorded(vectors, artifacts.probe_vectors(record.key))
    except BaseException:
        engine.close()
        raise
    warm_at = time.perf_counter()
    dispatcher = Dispatcher(engine, max_waiting=settings.max_waiting, observer=observer)
    loaded = LoadedEncoder(
        record=record,
        spec=spec,
        dispatcher=dispatcher,
        load_ms=(loaded_at - started) * 1000,
        warmup_ms=(warm_at - loaded_at) * 1000,
        weights_bytes=engine.weights_bytes,
    )
    weakref.finalize(loaded, _close_aside, dispatcher).atexit = False
    return loaded


def _close_aside(dispatcher: Dispatcher) -> None:
    """Whoever let go last may be the event loop: it must not wait for the dispatcher's thread."""
    threading.Thread(target=dispatcher.close, name="unload-encoder").start()
