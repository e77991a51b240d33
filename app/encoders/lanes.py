"""Embedding passages beside the queries: many small runs, one to a core, at low priority.

Queries want one run to be short, so their engine spreads each run over the cores. Passages want many runs to be
short together: one thread to a run needs no waiting between operators, and small runs stay in the cache.
"""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoders.cores import lower_priority, whole_cores
from app.encoders.engine import Engine, Precision, chosen, load_engine
from app.encoders.overlay import EncoderFiles
from app.encoders.packing import pack
from app.encoders.spec import EncoderSpec
from app.errors import Unavailable

PORTION_TOKENS = 512  # a run: 40 to 60 ms of MiniLM on one core
_STOPPING = "The service is stopping; send the passages again once it is back."


class PassageLanes:
    """Runs the engine that `load` gives, from `lanes` threads at once. Thread-safe.

    The engine is loaded at the first call: a service that only searches does not pay for it.
    """

    def __init__(
        self, load: Callable[[], Engine], prompt: str, lanes: int, portion_tokens: int = PORTION_TOKENS
    ) -> None:
        self._load = load
        self._prompt = prompt
        self._portion_tokens = portion_tokens
        self._engine: Engine | None = None
        self._loading = threading.Lock()
        self._closing = False
        self.embedded = 0  # passages since the start; counted under _counting
        self._counting = threading.Lock()
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="passages", initializer=lower_priority)

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors of the passage prompt + each text, shape (n, dim), when all are done.

        Raises `BadInput` for text that is no Unicode, `Unavailable` after `close`.
        """
        engine = self._loaded()
        prompted = [self._prompt + text for text in texts]
        vectors = np.empty((len(texts), engine.dimension), dtype=np.float32)

        def run(portion: list[int]) -> None:
            if self._closing:
                raise Unavailable(_STOPPING)
            vectors[portion] = engine.embed([prompted[i] for i in portion])

        try:
            runs = [self._threads.submit(run, each) for each in pack(engine.lengths(prompted), self._portion_tokens)]
        except RuntimeError as error:
            raise Unavailable(_STOPPING) from error
        done, waiting = wait(runs, return_when=FIRST_EXCEPTION)
        for each in waiting:
            each.cancel()
        for each in done:
            each.result()
        with self._counting:
            self.embedded += len(texts)
        return vectors

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of the passage prompt + each text, special ones included, after cutting to the maximum length."""
        return self._loaded().lengths([self._prompt + text for text in texts])

    def close(self) -> None:
        """Waits for the runs that have begun; what waits is dropped."""
        self._closing = True
        self._threads.shutdown()
        with self._loading:
            if self._engine:
                self._engine.close()

    def _loaded(self) -> Engine:
        with self._loading:
            if self._engine is None:
                self._engine = self._load()
            return self._engine


def passage_lanes(
    files: EncoderFiles,
    spec: EncoderSpec,
    *,
    kind: str,
    threads: int,
    graphs_dir: Path,
    weights_dir: Path,
    precision: Precision = "fp32",
    prompt: str | None = None,
) -> PassageLanes:
    """One lane to a core, each of one thread; on torch one lane, since torch sets its threads for the process.

    `prompt` stands in for the passage prompt that the encoder has; the rest is as `load_engine` takes it.
    """
    kind = chosen(kind, precision)
    cores = threads or whole_cores()
    lanes = 1 if kind == "torch" else cores

    def load() -> Engine:
        return load_engine(
            files,
            spec,
            kind=kind,
            precision=precision,
            threads=1 if kind == "onnx" else cores,  # of a run; the others count all their threads
            lanes=lanes,
            graphs_dir=graphs_dir,
            weights_dir=weights_dir,
        )

    return PassageLanes(load, spec.passage_prompt if prompt is None else prompt, lanes)
