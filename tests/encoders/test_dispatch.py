"""The dispatcher over a real engine that can be held: it blocks before each run until the test lets it go on."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoders.dispatch import Dispatcher
from app.encoders.files import EncoderFiles
from app.encoders.onnx_engine import OnnxEngine
from app.errors import BadInput, Overloaded, Unavailable
from tests.encoders.conftest import Caches

LIMIT_S = 20


class HeldEngine:
    """`inner`, with a record of its runs, `started` set as one begins and `go` needed for it to go on."""

    name = "held"

    def __init__(self, inner: OnnxEngine) -> None:
        self.inner = inner
        self.dimension = inner.dimension
        self.runs: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.closed = 0

    @property
    def tokens(self) -> int:
        return self.inner.tokens

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        self.runs.append(list(texts))
        self.started.release()
        assert self.go.acquire(timeout=LIMIT_S)
        return self.inner.embed(texts, prompt)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self.inner.lengths(texts)

    def close(self) -> None:
        self.closed += 1

    def wait_started(self) -> None:
        assert self.started.acquire(timeout=LIMIT_S)

    def let_go(self, runs: int = 1_000) -> None:
        self.go.release(runs)


@pytest.fixture
def engine(tiny: EncoderFiles, caches: Caches) -> OnnxEngine:
    return caches.engine(tiny)


@pytest.fixture
def held(engine: OnnxEngine) -> HeldEngine:
    return HeldEngine(engine)


@pytest.fixture
def dispatcher(held: HeldEngine) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(held, max_waiting=8, batch_tokens=256, runs=1)
    yield dispatcher
    held.let_go()
    dispatcher.close(drain=False)


def test_many_threads_get_their_own_vectors_back(engine: OnnxEngine) -> None:
    dispatcher = Dispatcher(engine, max_waiting=10_000)
    texts = [f"water {i} pump {i * 7}" for i in range(200)]
    expected = {text: engine.embed([text])[0] for text in texts}
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: dispatcher.submit([text]).result(LIMIT_S)[0], texts))
    dispatcher.close()
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_allclose(vector, expected[text], atol=1e-5)


def test_what_waits_becomes_one_batch_whatever_its_prompts(
    held: HeldEngine, dispatcher: Dispatcher, engine: OnnxEngine
) -> None:
    dispatcher.submit(["first"])
    held.wait_started()
    one, two = dispatcher.submit(["oil", "fire"], "query: "), dispatcher.submit(["oil"], "other: ")
    held.let_go()
    np.testing.assert_allclose(one.result(LIMIT_S), engine.embed(["query: oil", "query: fire"]), atol=1e-5)
    np.testing.assert_allclose(two.result(LIMIT_S), engine.embed(["other: oil"]), atol=1e-5)
    assert held.runs == [["first"], ["query: oil", "query: fire", "other: oil"]]


def test_what_several_ask_at_once_is_embedded_once(
    held: HeldEngine, dispatcher: Dispatcher, engine: OnnxEngine
) -> None:
    dispatcher.submit(["first"])
    held.wait_started()
    futures = [dispatcher.submit(texts) for texts in (["oil", "fire"], ["fire"], ["fire", "oil", "fire"])]
    held.let_go()
    oil, fire = engine.embed(["oil", "fire"])
    for future, expected in zip(futures, ([oil, fire], [fire], [fire, oil, fire]), strict=True):
        np.testing.assert_allclose(future.result(LIMIT_S), expected, atol=1e-5)
    assert held.runs == [["first"], ["oil", "fire"]]


def test_a_batch_ends_at_its_budget(held: HeldEngine, dispatcher: Dispatcher) -> None:
    dispatcher.submit(["first"])
    held.wait_started()
    futures = [dispatcher.submit(["heart " * 100]) for _ in range(3)]
    held.let_go()
    for future in futures:
        future.result(LIMIT_S)
    assert [len(run) for run in held.runs] == [1, 1, 1, 1]


def test_cancelled_work_is_dropped_and_frees_its_place(held: HeldEngine, dispatcher: Dispatcher) -> None:
    dispatcher.submit(["first"])
    held.wait_started()
    doomed = [dispatcher.submit(["doomed"]) for _ in range(8)]
    assert all(future.cancel() for future in doomed)
    kept = dispatcher.submit(["kept"])
    held.let_go()
    kept.result(LIMIT_S)
    assert held.runs == [["first"], ["kept"]]


def test_too_many_waiting_queries_are_refused_at_once(held: HeldEngine, dispatcher: Dispatcher) -> None:
    dispatcher.submit(["first"])
    held.wait_started()
    accepted = dispatcher.submit(["x"] * 6)
    with pytest.raises(Overloaded, match="6 texts wait"):
        dispatcher.submit(["y"] * 3)
    last = dispatcher.submit(["y"] * 2)
    held.let_go()
    assert accepted.result(LIMIT_S).shape == (6, 32)
    assert last.result(LIMIT_S).shape == (2, 32)
    assert dispatcher.submit(["z"] * 8).result(LIMIT_S).shape == (8, 32)


def late(held: HeldEngine, batch_tokens: int) -> tuple[Dispatcher, list[Future[NDArray[np.float32]]]]:
    """A dispatcher in whose queue two have waited too long, behind a run that goes on."""
    dispatcher = Dispatcher(held, max_waiting=8, max_wait_s=1, batch_tokens=batch_tokens, runs=1)
    dispatcher.submit(["running"])
    held.wait_started()
    waiting = [dispatcher.submit([text]) for text in ("late", "later")]
    time.sleep(1.05)
    return dispatcher, waiting


def test_once_queries_wait_too_long_further_ones_are_refused_until_that_is_made_up_for(held: HeldEngine) -> None:
    dispatcher, waiting = late(held, batch_tokens=1)
    with pytest.raises(Overloaded, match=r"wait for \d+\.\d s for the encoder, and 1 s is the most"):
        dispatcher.submit(["too late"])
    more = dispatcher.submit(["the rest of a request"], goes_on=True)
    held.let_go()
    assert [each.result(LIMIT_S).shape for each in (*waiting, more)] == [(1, 32)] * 3
    assert dispatcher.submit(["again"]).result(LIMIT_S).shape == (1, 32)
    dispatcher.close()
    assert [run for run in held.runs if run != ["the rest of a request"]] == [
        ["running"],
        ["late"],
        ["later"],
        ["again"],
    ]


def test_a_short_query_does_not_wait_behind_what_goes_on_with_long_requests(held: HeldEngine) -> None:
    dispatcher = Dispatcher(held, max_waiting=8, batch_tokens=1, runs=2)
    rest = [dispatcher.submit([f"rest {n}"], goes_on=True) for n in range(3)]
    held.wait_started()
    queries = [dispatcher.submit([text]) for text in ("oil", "fire")]
    held.wait_started()
    held.wait_started()  # neither run of the rest was let go
    assert held.runs[0] == ["rest 0"]
    assert sorted(held.runs[1:]) == [["fire"], ["oil"]]
    assert dispatcher.waiting == 2
    held.let_go()
    assert [each.result(LIMIT_S).shape for each in (*rest, *queries)] == [(1, 32)] * 5
    dispatcher.close()
    assert sorted(held.runs[3:]) == [["rest 1"], ["rest 2"]]


def test_what_the_next_run_takes_whole_is_no_queue_however_long_the_one_before_lasts(held: HeldEngine) -> None:
    dispatcher, waiting = late(held, batch_tokens=256)
    waiting.append(dispatcher.submit(["last"]))
    held.let_go()
    assert [each.result(LIMIT_S).shape for each in waiting] == [(1, 32)] * 3
    dispatcher.close()
    assert held.runs == [["running"], ["late", "later", "last"]]


def test_whoever_left_keeps_nobody_else_out(held: HeldEngine) -> None:
    dispatcher, waiting = late(held, batch_tokens=1)
    assert all(each.cancel() for each in waiting)
    last = dispatcher.submit(["last"])
    assert dispatcher.waiting == 1
    held.let_go()
    assert last.result(LIMIT_S).shape == (1, 32)
    dispatcher.close()


def test_a_text_that_fails_fails_alone(held: HeldEngine, dispatcher: Dispatcher, engine: OnnxEngine) -> None:
    dispatcher.submit(["first"])
    held.wait_started()
    good, bad, other = (dispatcher.submit([text]) for text in ("good", "half \ud83d", "other"))
    held.let_go()
    with pytest.raises(BadInput, match="surrogate"):
        bad.result(LIMIT_S)
    np.testing.assert_allclose(good.result(LIMIT_S), engine.embed(["good"]), atol=1e-5)
    np.testing.assert_allclose(other.result(LIMIT_S), engine.embed(["other"]), atol=1e-5)
    assert dispatcher.submit(["after"]).result(LIMIT_S).shape == (1, 32)


def test_closing_finishes_what_waits_and_takes_nothing_more(held: HeldEngine, dispatcher: Dispatcher) -> None:
    futures = [dispatcher.submit(["one"]), dispatcher.submit(["two"] * 3)]
    held.let_go()
    dispatcher.close()
    dispatcher.close()
    assert [future.result(0).shape for future in futures] == [(1, 32), (3, 32)]
    assert held.closed == 1
    with pytest.raises(Unavailable):
        dispatcher.submit(["late"])


def test_closing_without_draining_cancels_what_waits(held: HeldEngine, dispatcher: Dispatcher) -> None:
    running = dispatcher.submit(["running"])
    held.wait_started()
    waiting = dispatcher.submit(["waiting"])
    held.let_go()
    dispatcher.close(drain=False)
    assert running.result(0).shape == (1, 32)
    if not waiting.cancelled():  # it may have been taken between the two calls
        assert waiting.result(0).shape == (1, 32)


def test_asyncio_tasks_await_vectors_and_their_cancellation_reaches_the_queue(
    held: HeldEngine, dispatcher: Dispatcher, engine: OnnxEngine
) -> None:
    async def run() -> NDArray[np.float32]:
        first = asyncio.create_task(dispatcher.embed_async(["first"]))
        await asyncio.to_thread(held.wait_started)
        doomed = asyncio.create_task(dispatcher.embed_async(["doomed"]))
        await asyncio.sleep(0)  # the task runs up to its await
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        held.let_go()
        return await first

    np.testing.assert_allclose(asyncio.run(run()), engine.embed(["first"]), atol=1e-5)
    dispatcher.submit(["last"]).result(LIMIT_S)
    assert held.runs == [["first"], ["last"]]


class Heard:
    """Keeps what the dispatcher tells of its runs."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, list[float], float]] = []
        self.told = threading.Semaphore(0)

    def ran(self, *, texts: int, tokens: int, waited_s: Sequence[float], took_s: float) -> None:
        self.runs.append((texts, tokens, list(waited_s), took_s))
        self.told.release()


def test_every_run_is_told_with_its_texts_tokens_and_times(held: HeldEngine) -> None:
    heard = Heard()
    dispatcher = Dispatcher(held, max_waiting=8, batch_tokens=256, runs=1, observer=heard)
    first = dispatcher.submit(["water pump"])
    held.wait_started()
    queued = [dispatcher.submit(["oil", "filter"]), dispatcher.submit(["heart"])]
    assert dispatcher.waiting == 3
    queued_at = time.perf_counter()
    time.sleep(0.01)
    held_s = time.perf_counter() - queued_at
    held.let_go()
    for future in (first, *queued):
        future.result(timeout=LIMIT_S)
    for _ in range(2):
        assert heard.told.acquire(timeout=LIMIT_S)
    dispatcher.close()
    assert dispatcher.waiting == 0
    [(texts, tokens, waited, took), (texts_2, tokens_2, waited_2, _)] = heard.runs
    assert (texts, tokens, len(waited)) == (1, sum(held.lengths(["water pump"])), 1)
    assert (texts_2, tokens_2, len(waited_2)) == (3, sum(held.lengths(["oil", "filter", "heart"])), 2)
    assert waited[0] >= 0
    assert min(waited_2) >= held_s
    assert took > 0


def test_a_run_that_fails_is_not_told(engine: OnnxEngine) -> None:
    heard = Heard()
    dispatcher = Dispatcher(engine, max_waiting=8, observer=heard)
    with pytest.raises(BadInput):
        dispatcher.submit(["\ud800"]).result(timeout=LIMIT_S)
    dispatcher.submit(["fine"]).result(timeout=LIMIT_S)
    dispatcher.close()
    assert [texts for texts, *_ in heard.runs] == [1]


@pytest.fixture
def two(held: HeldEngine) -> Iterator[Dispatcher]:
    """Of two runs; each takes one job."""
    dispatcher = Dispatcher(held, max_waiting=8, batch_tokens=1, runs=2)
    yield dispatcher
    held.let_go()
    dispatcher.close(drain=False)


def test_two_runs_are_under_way_at_once_and_what_comes_then_waits(
    held: HeldEngine, two: Dispatcher, engine: OnnxEngine
) -> None:
    texts = ["water pump", "heart valve", "oil filter"]
    futures = [two.submit([text]) for text in texts]
    held.wait_started()
    held.wait_started()  # neither was let go
    assert sorted(held.runs) == [["heart valve"], ["water pump"]]
    assert two.waiting == 1
    assert not held.started.acquire(timeout=0.2)
    held.let_go(1)
    held.wait_started()
    assert held.runs[2] == ["oil filter"]
    held.let_go()
    for text, future in zip(texts, futures, strict=True):
        np.testing.assert_allclose(future.result(LIMIT_S), engine.embed([text])[:1], atol=1e-5)


def test_closing_ends_both_runs_and_finishes_what_waits(held: HeldEngine, two: Dispatcher) -> None:
    running = [two.submit(["one"]), two.submit(["two"])]
    held.wait_started()
    held.wait_started()
    last = two.submit(["three"])
    closer = threading.Thread(target=two.close)
    closer.start()
    held.let_go(1)
    closer.join(0.2)
    assert closer.is_alive()  # the other run is still held
    assert held.closed == 0
    held.let_go()
    closer.join(LIMIT_S)
    assert not closer.is_alive()
    assert [future.result(0).shape for future in (*running, last)] == [(1, 32)] * 3
    assert held.closed == 1
    assert not any(worker.is_alive() for worker in two._workers)


def test_idle_runs_end_at_once_when_it_is_closed(engine: OnnxEngine) -> None:
    dispatcher = Dispatcher(engine, max_waiting=8, runs=3)
    closer = threading.Thread(target=dispatcher.close, daemon=True)
    closer.start()
    closer.join(LIMIT_S)
    assert not closer.is_alive()


def test_an_error_of_one_run_leaves_the_other_alone(held: HeldEngine, two: Dispatcher, engine: OnnxEngine) -> None:
    bad, good = two.submit(["half \ud83d"]), two.submit(["good"])
    held.wait_started()
    held.wait_started()
    held.let_go()
    with pytest.raises(BadInput, match="surrogate"):
        bad.result(LIMIT_S)
    np.testing.assert_allclose(good.result(LIMIT_S), engine.embed(["good"]), atol=1e-5)
    futures = [two.submit(["after"]) for _ in range(2)]
    assert [future.result(LIMIT_S).shape for future in futures] == [(1, 32)] * 2


def test_runs_at_once_are_told_each_with_its_own_tokens(held: HeldEngine) -> None:
    heard = Heard()
    dispatcher = Dispatcher(held, max_waiting=8, batch_tokens=1, runs=2, observer=heard)
    texts = ["water pump", "the long oil filter"]
    futures = [dispatcher.submit([text]) for text in texts]
    held.wait_started()
    held.wait_started()
    held.let_go()
    for future in futures:
        future.result(LIMIT_S)
    dispatcher.close()
    assert sorted(tokens for _, tokens, *_ in heard.runs) == sorted(held.lengths(texts))
    assert len({*held.lengths(texts)}) == 2
