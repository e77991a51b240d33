"""The machine's clock is set, forwards and back, while a service runs; and the clocks of two machines differ.

Leases of jobs do not read it at all: `tests/registry/test_leases.py`, `tests/service/test_job_keeping.py`.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from app.client import AdiabatClient
from app.registry import Instance, Registry, clock
from app.registry.clock import MAX_ROUND_TRIP_S
from app.registry.clocks import MAX_AHEAD_S, ClockWatch
from app.registry.copying import copy_registry
from app.registry.instances import LEASE_S
from app.settings import Settings
from tests.conftest import environment, process, running, wait_until
from tests.postgres import Server
from tests.service import encoders

HOUR_S = 3600.0
SOURCE = Path(__file__).with_name("clock.c")
BEATING = """
import sys, threading
from app.registry import Registry
from trainer.heartbeat import Heartbeat

with Heartbeat(Registry(sys.argv[1]), "far", "far/1", threading.Event()):
    sys.stdin.read()
"""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class OffClock:
    """The clock on the wall of processes that have these `variables`; `set` may be called while they run."""

    library: Path
    file: Path

    def set(self, ahead_s: int) -> None:
        with self.file.open("r+b") as opened:  # in place: it is mapped
            opened.write(ahead_s.to_bytes(8, sys.byteorder, signed=True))

    @property
    def variables(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_AHEAD": str(self.file)}


@pytest.fixture
def off(tmp_path: Path) -> OffClock:
    made = OffClock(library=tmp_path / "clock.so", file=tmp_path / "ahead")
    made.file.write_bytes(bytes(8))
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(made.library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return made


@pytest.fixture
def on_postgres(settings: Settings, postgres: Server) -> Iterator[Settings]:
    url = postgres.migrated()
    source, target = Registry(settings.registry_path), Registry(url)
    copy_registry(source.database, target.database)
    source.close()
    target.close()
    yield settings.model_copy(update={"registry_url": url})
    postgres.drop(url)


@contextmanager
def beating(url: str, variables: dict[str, str]) -> Iterator[list[str]]:
    """A trainer, as far as others hear of it. What is given has its log afterwards."""
    command, log = [sys.executable, "-c", BEATING, url], list[str]()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True, env=os.environ | variables) as child:
        yield log
        log += child.communicate(timeout=30)[1].splitlines()
        assert child.returncode == 0


def notes(client: AdiabatClient) -> list[str]:
    return [note.partition(" Have")[0] for note in client.ready().notes]


def told(client: AdiabatClient) -> dict[str, float]:
    """`adiabat_clock_offset_seconds`."""
    found = re.findall(r'^adiabat_clock_offset_seconds\{process="(.*)"\} (\S+)$', client.metrics(), re.MULTILINE)
    return {whose: float(seconds) for whose, seconds in found}


def test_a_machine_whose_clock_is_off_is_told_of_by_all_as_long_as_it_is(
    on_postgres: Settings, off: OffClock, tmp_path: Path
) -> None:
    """The trainer's was off from the start, as was the doctor's; the service's is set while it runs."""
    url, theirs = str(on_postgres.registry_url), replace(off, file=tmp_path / "theirs")
    theirs.file.write_bytes(bytes(8))
    theirs.set(-600)
    looked = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor"],
        env=environment(on_postgres) | theirs.variables | {"COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"warn +clock +The clock of this machine is (599|600)\.\d s behind the registry", looked.stdout)
    with process(on_postgres, "--no-trainer", variables=off.variables) as (child, client):
        with beating(url, theirs.variables) as log:
            wait_until(lambda: len(told(client)) == 2)
            assert told(client)["trainer far"] == pytest.approx(-600, abs=1)
            [said] = notes(client)
            behind = r"The clock of the trainer far is (599|600)\.\d s behind the registry database's\."
            assert re.fullmatch(behind, said)
            assert client.ready().status == "ready"
        [line] = log
        assert re.match(r"The clock of this machine is (599|600)\.\d s behind the registry database's\. Have", line)
        [whose] = told(client)
        assert whose.endswith(f"-{child.pid}")
        assert notes(client) == []
        for ahead_s in (600, -600):
            off.set(ahead_s)
            wait_until(lambda ahead_s=ahead_s: abs(told(client)[whose] - ahead_s) < 1)  # type: ignore[misc]
            [said] = notes(client)
            assert said.startswith(f"The clock of the {whose} is ")
            assert ("ahead of" in said) == (ahead_s > 0)
            assert client.active_encoder().replicas.live == 1
        off.set(0)
        wait_until(lambda: notes(client) == [])
        assert abs(told(client)[whose]) < 1
    lines = [json.loads(line) for line in (tmp_path / "service.log").read_text().splitlines() if line[0] == "{"]
    said = [each["message"] for each in lines if each["logger"] == "adiabat.clock"]
    assert len(said) == 2
    assert re.match(r"The clock of this machine is (599|600)\.\d s ahead of .* set by NTP: times in its log", said[0])
    assert said[1].startswith("The clock of this machine agrees with the registry database's again")


def test_a_clock_that_drifts_around_the_bound_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="adiabat.clock")
    watch = ClockWatch()
    for ahead_s in (0.0, None, MAX_AHEAD_S + 0.1, MAX_AHEAD_S - 0.1, None, MAX_AHEAD_S + 0.1, -0.1, 0.1):
        watch.look(ahead_s)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("took_s", [MAX_ROUND_TRIP_S + 0.5, -1.0], ids=["slow", "set back meanwhile"])
def test_an_answer_that_tells_too_little_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, took_s: float
) -> None:
    registry = Registry(tmp_path / "registry.db")
    assert abs(registry.workers.beat("w") or 0.0) < 1
    assert set(registry.clocks.ahead_s()) == {"trainer w"}

    class Steps:
        def __init__(self) -> None:
            self.at = time.time()

        def time(self) -> float:
            self.at += took_s
            return self.at

    monkeypatch.setattr(clock, "time", Steps())
    assert registry.workers.beat("w") is None
    assert registry.clocks.ahead_s() == {}
    registry.close()
