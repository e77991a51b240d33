"""When a service may have been taken for dead by the others on its registry, by a clock that the test sets."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.encoders import replicas
from app.encoders.replicas import GAP_S, Replica
from app.registry import Registry
from app.registry.instances import LEASE_S


class At:
    s = 1_000.0


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    clock = At()
    monkeypatch.setattr(replicas, "_clock", lambda: clock.s)
    return clock


@pytest.fixture
def replica(tmp_path: Path, at: At) -> Iterator[Replica]:  # noqa: ARG001 - the clock first
    registry = Registry(tmp_path / "registry.db")
    nobody = cast("Any", SimpleNamespace(current=SimpleNamespace(reached=0)))
    made = Replica(registry, nobody, nobody, lambda: "here")
    made.join()
    yield made
    registry.close()


def live(replica: Replica, at: At, beaten_s: float, ticked_s: float) -> None:
    """Its last sign of life and its last tick, so many seconds from now."""
    start = at.s
    at.s = start + beaten_s
    replica._look(paused=False)
    at.s = start + ticked_s
    replica._tick()


def test_the_lease_counts_from_the_last_sign_of_life_not_from_the_last_tick(replica: Replica, at: At) -> None:
    live(replica, at, beaten_s=0.0, ticked_s=0.9)
    stopped_until = at.s - 0.9 + LEASE_S + 0.1  # the others have just taken it for dead; its tick is younger
    at.s = stopped_until
    assert replica.is_paused()
    replica._tick()
    assert replica.is_paused()  # until it has looked


def test_a_short_pause_costs_nothing(replica: Replica, at: At) -> None:
    live(replica, at, beaten_s=0.0, ticked_s=0.9)
    at.s += LEASE_S - 1
    assert not replica.is_paused()
    replica._tick()
    assert not replica.is_paused()


def test_a_registry_that_is_away_is_no_pause(replica: Replica, at: At) -> None:
    live(replica, at, beaten_s=0.0, ticked_s=0.0)
    for _ in range(60):
        at.s += GAP_S - 0.1
        assert not replica.is_paused()
        replica._tick()
