"""Passage lanes over a real engine: order, the prompt, one failure, closing, and queries beside them."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoders.files import EncoderFiles
from app.encoders.lanes import PassageLanes
from app.encoders.onnx_engine import OnnxEngine
from app.errors import BadInput, Unavailable
from tests.conftest import wait_until
from tests.encoders.conftest import Caches

LIMIT_S = 20
TEXTS = [f"{i} " + "water " * (i * 13 % 17) for i in range(40)]


class WatchedEngine:
    """`inner`, noting who runs it; each run waits for `go`."""

    name = "watched"

    def __init__(self, inner: OnnxEngine) -> None:
        self.inner = inner
        self.dimension = inner.dimension
        self.go = threading.Event()
        self.started = threading.Semaphore(0)
        self.threads: set[str] = set()
        self.priorities: set[int] = set()
        self.runs = 0
        self.closed = 0

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        self.runs += 1
        self.threads.add(threading.current_thread().name)
        self.priorities.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.started.release()
        assert self.go.wait(LIMIT_S)
        return self.inner.embed(texts, prompt)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self.inner.lengths(texts)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def engine(tiny: EncoderFiles, caches: Caches) -> OnnxEngine:
    return caches.engine(tiny)


@pytest.fixture
def watched(engine: OnnxEngine) -> WatchedEngine:
    return WatchedEngine(engine)


@pytest.fixture
def lanes(watched: WatchedEngine) -> Iterator[PassageLanes]:
    lanes = PassageLanes(lambda: watched, "passage: ", 2, portion_tokens=64)
    yield lanes
    watched.go.set()
    lanes.close()


def test_vectors_come_back_in_the_order_of_the_texts_with_the_prompt(
    lanes: PassageLanes, watched: WatchedEngine, engine: OnnxEngine
) -> None:
    watched.go.set()
    np.testing.assert_allclose(lanes.embed(TEXTS), engine.embed(TEXTS, "passage: "), atol=1e-5)
    assert watched.runs > 5


def test_all_lanes_run_at_once_at_low_priority(lanes: PassageLanes, watched: WatchedEngine) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(lanes.embed, TEXTS)
        for _ in range(2):  # the second starts while the first is held
            assert watched.started.acquire(timeout=LIMIT_S)
        watched.go.set()
        assert answer.result(LIMIT_S).shape == (40, 32)
    assert len(watched.threads) == 2
    assert watched.priorities == {max(own, 10)}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_the_engine_is_loaded_once_and_only_when_needed(watched: WatchedEngine) -> None:
    watched.go.set()
    loads = []

    def load() -> WatchedEngine:
        loads.append(1)
        return watched

    lanes = PassageLanes(load, "", 1)
    assert not loads
    lanes.embed(["one"])
    lanes.embed(["two"])
    assert len(loads) == 1
    lanes.close()
    assert watched.closed == 1


def test_a_text_that_cannot_be_read_fails_its_call_and_no_other(lanes: PassageLanes, watched: WatchedEngine) -> None:
    watched.go.set()
    with pytest.raises(BadInput):
        lanes.embed([*TEXTS, "\ud83d"])
    assert lanes.embed(["after"]).shape == (1, 32)


def test_closing_ends_a_call_that_waits_and_refuses_the_next(lanes: PassageLanes, watched: WatchedEngine) -> None:
    with ThreadPoolExecutor(2) as callers:
        answer = callers.submit(lanes.embed, TEXTS)
        assert watched.started.acquire(timeout=LIMIT_S)
        closing = callers.submit(lanes.close)
        wait_until(lambda: lanes._closing)  # the runs are still held
        watched.go.set()
        closing.result(LIMIT_S)
        with pytest.raises(Unavailable):
            answer.result(LIMIT_S)
    assert watched.closed == 1
    with pytest.raises(Unavailable):
        lanes.embed(["late"])
