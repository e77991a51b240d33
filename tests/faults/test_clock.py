"""The machine's clock is set, forwards and back, while a service runs.

Leases of jobs do not read it at all: `tests/registry/test_leases.py`, `tests/service/test_job_keeping.py`.
"""

import time
from pathlib import Path

import pytest

from app.registry import Instance, Registry, clock
from app.registry.instances import LEASE_S
from app.settings import Settings
from tests.conftest import running, wait_until
from tests.service import encoders

HOUR_S = 3600.0


class Wall:
    """The clock on the wall, which somebody may set."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    made = Wall()
    monkeypatch.setattr(clock, "time", made)
    return made


def instance(name: str) -> Instance:
    return Instance(id=name, name=name, store="one", generation=1, failed_generation=None, reason=None)


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_who_is_alive_is_so_again_at_the_next_beat_and_who_died_stays_dead(
    wall: Wall, tmp_path: Path, by_s: float
) -> None:
    registry = Registry(tmp_path / "registry.db")
    for name in ("alive", "died"):
        registry.instances.beat(instance(name))
        registry.workers.beat(name)
    wall.ahead_s = by_s
    registry.instances.beat(instance("alive"))
    registry.workers.beat("alive")
    assert [each.name for each in registry.instances.live()] == ["alive"]
    ages_s = registry.workers.ages_s()
    assert ages_s["alive"] < LEASE_S < ages_s.get("died", HOUR_S)
    registry.close()


@pytest.mark.parametrize("by_s", [-HOUR_S, HOUR_S])
def test_switches_keep_their_order_and_nobody_is_taken_for_dead_when_the_clock_is_set(
    wall: Wall, settings: Settings, tiny: Path, sources: Path, by_s: float
) -> None:
    folder = str(encoders.near(tiny, sources / "bees"))
    shared = settings.model_copy(update={"registry_url": f"sqlite:///{settings.registry_path}"})
    with running(shared) as service:
        client = service.client
        client.register_encoder("bees", path=folder)
        client.activate("bees")
        wall.ahead_s = by_s
        assert client.search("water").encoder.name == "bees"
        rolled_back = client.rollback()
        assert rolled_back.encoder.generation == 3
        assert rolled_back.replicas.behind == []
        wait_until(lambda: client.active_encoder().replicas.live == 1)
        assert not service.parts.replicas.is_paused()
        assert [each.generation for each in client.history()] == [3, 2, 1]
        client.upsert_passages([{"id": "p", "text": "water pump"}])
        assert client.ready().status == "ready"
    with running(shared) as service:
        assert service.client.active_encoder().encoder.generation == 3
