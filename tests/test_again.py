"""A thread that does the same again and again: what fails, what wakes it, and how it ends."""

import logging
import queue
import threading

import pytest

from app.again import Again
from app.errors import Unavailable
from tests.conftest import wait_until

LIMIT_S = 20
LONG_S = 3600.0
log = logging.getLogger("tests.again")


def away() -> None:
    raise Unavailable("The registry is away.")


def broken() -> None:
    raise ZeroDivisionError


def test_what_fails_stops_neither_the_next_step_nor_the_next_round(caplog: pytest.LogCaptureFixture) -> None:
    done: queue.Queue[None] = queue.Queue()
    again = Again("keeper", lambda: 0.001, away, broken, lambda: done.put(None), log=log)
    again.start()
    for _ in range(2):
        done.get(timeout=LIMIT_S)
    again.stop()
    first, second, *_ = caplog.records
    assert (first.levelname, first.message) == ("WARNING", "keeper waits: The registry is away.")
    assert (second.levelname, second.message) == ("ERROR", "keeper met a bug, and goes on")
    assert second.exc_info


def test_it_is_woken_and_ended_in_the_longest_pause() -> None:
    done: queue.Queue[None] = queue.Queue()
    again = Again("keeper", lambda: LONG_S, lambda: done.put(None), log=log)
    again.wake()  # before it starts: it need not wait first
    again.start()
    done.get(timeout=LIMIT_S)
    again.wake()
    done.get(timeout=LIMIT_S)
    again.stop()
    assert done.empty()
    assert again.stopping
    assert "keeper" not in [thread.name for thread in threading.enumerate()]


def test_what_comes_while_a_step_is_taken_is_seen_after_it() -> None:
    done: queue.Queue[None] = queue.Queue()
    comes = iter([True])

    def step() -> None:
        if next(comes, False):
            again.wake()
        done.put(None)

    again = Again("keeper", lambda: LONG_S, step, log=log)
    again.wake()
    again.start()
    for _ in range(2):
        done.get(timeout=LIMIT_S)
    again.stop()


def test_no_step_is_begun_by_one_that_was_told_to_stop() -> None:
    begun: list[str] = []

    def last() -> None:
        begun.append("last")
        again.dismiss()

    again = Again("keeper", lambda: LONG_S, last, lambda: begun.append("more"), log=log)
    again.wake()
    again.start()
    wait_until(lambda: bool(begun))
    again.stop()
    assert begun == ["last"]
