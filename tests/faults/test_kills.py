"""kill -9 of the service and its trainer at random moments of everything that they write.

After every one of them each acknowledged write is there, no encoder is half registered, the generation that a switch
was answered with is the one that serves, and the service was up again in seconds. `-s` shows the figures.
"""

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from app.cli.datasets import zip_folder
from app.client import ApiError, Unreachable
from app.encoders.artifacts import ArtifactStore
from app.encoders.digest import digest_encoder
from app.encoders.spec import read_spec
from app.registry import EncoderState, Registry
from app.settings import Settings
from tests.conftest import process, trainer_of, wait_until
from tests.service import encoders
from tests.service.test_process import state_of
from tests.service.test_tuning_jobs import dataset, passages

__all__ = ["dataset"]  # a fixture

INDEX_AFTER = 150
BATCH = 5
UP_S = 5.0  # promised on a machine that does nothing else
RECIPE = {"learning_rate": 1e-6, "epochs": 1_000, "batch_size": 4, "soften": 0.5, "runs": 1}
AWAY = (ApiError, Unreachable)


@dataclass(kw_only=True)
class Ledger:
    """What was asked for, and what was acknowledged."""

    stored: dict[str, str] = field(default_factory=dict)  # text by id
    perhaps: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    perhaps_deleted: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=lambda: {"base"})
    perhaps_named: str | None = None
    active: tuple[int, str] = (1, "base")
    perhaps_active: str | None = None


@dataclass(kw_only=True)
class Kill:
    phase: str
    victim: str
    after_ms: float  # since the phase had begun
    kept: int  # steps in the newest checkpoint
    at: float = field(default_factory=time.time)
    up_s: float | None = None


class Campaign:
    def __init__(self, settings: Settings, tiny: Path, stack: ExitStack, seed: int) -> None:
        self.settings = settings
        self.ledger = Ledger()
        self.kills: list[Kill] = []
        self.job_id = ""
        self._tiny = tiny
        self._random = random.Random(seed)
        self._stack = stack
        self._publish_s = 1.0
        self._seeds = self._numbers = 0
        self._registry = Registry(settings.registry_path)
        stack.callback(self._registry.close)
        self.start()

    def start(self) -> float:
        """Seconds until it was ready."""
        began = time.monotonic()
        variables = {"ADIABAT_INDEX_AFTER": str(INDEX_AFTER)}
        program = process(self.settings, program="tests.faults.often_saved", variables=variables)
        self._child, self._client = self._stack.enter_context(program)
        return time.monotonic() - began

    def prepare(self, archive: Path) -> None:
        """A job that goes on through all of it, and what the phases need."""
        self._store({item["id"]: item["text"] for item in passages()})
        self._client.put_dataset("pumps", archive)
        began = time.monotonic()
        for _ in range(2):
            self._publish()
        self._publish_s = (time.monotonic() - began) / 2
        gate = {"min_gain": -1, "max_guard_loss": 1}
        self.job_id = self._client.create_tuning_job("long", "pumps", recipe=RECIPE, gate=gate).id

    def kill_in(self, phase: str) -> None:
        work: dict[str, Callable[[], float]] = {
            "ingest": lambda: self._random.uniform(0, 0.5),
            "indexing": self._until_indexing,
            "publish": lambda: self._begin(self._publish) or self._random.uniform(0, 3 * self._publish_s),
            "switch": lambda: self._begin(self._switch_on) or self._random.uniform(0, 0.4),
            "checkpoint": self._until_checkpoint,
        }
        self._threads: list[threading.Thread] = []
        self._begin(self._ingest_on)
        after_s = work[phase]()
        time.sleep(after_s)
        alone = phase == "checkpoint" and self._random.random() < 0.5
        victim = "trainer" if alone else self._random.choice(["service", "service and trainer"])
        done = Kill(phase=phase, victim=victim, after_ms=after_s * 1000, kept=self._steps_kept())
        self.kills.append(done)
        trainer = trainer_of(self._child.pid)
        if trainer and "trainer" in victim:
            os.kill(trainer, signal.SIGKILL)
        if "service" in victim:
            self._child.kill()
            self._child.wait()
            self._end_threads()
            done.up_s = self.start()
        self._stopping = True
        self._end_threads()
        if trainer:
            wait_until(lambda: not Path(f"/proc/{trainer}").exists() or state_of(trainer) == "Z")
        self._verify()

    # What the phases do until the service dies

    def _begin(self, work: Callable[[], None]) -> None:
        self._stopping = False

        def run() -> None:
            with suppress(*AWAY):
                work()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def _end_threads(self) -> None:
        for thread in self._threads:
            thread.join()

    def _ingest_on(self) -> None:
        while not self._stopping:
            number = self._numbers = self._numbers + BATCH
            self._store({f"i{number + n}": f"water pump {number + n}" for n in range(BATCH)})
            doomed = f"i{number}"
            self.ledger.perhaps_deleted.add(doomed)
            assert self._client.delete_passages([doomed]) == 1
            self.ledger.perhaps_deleted.discard(doomed)
            self.ledger.deleted.add(doomed)
            del self.ledger.stored[doomed]
            time.sleep(0.01)

    def _store(self, texts: dict[str, str]) -> None:
        self.ledger.perhaps |= texts
        self._client.upsert_passages([{"id": id, "text": text} for id, text in texts.items()])
        self.ledger.stored |= texts
        for id in texts:
            del self.ledger.perhaps[id]

    def _publish(self) -> None:
        self._seeds += 1
        name = f"e{self._seeds}"
        folder = encoders.near(self._tiny, self.settings.source_dirs[0] / name, seed=self._seeds)
        self.ledger.perhaps_named = name
        self._client.register_encoder(name, path=str(folder))
        self.ledger.perhaps_named = None
        self.ledger.names.add(name)

    def _switch_on(self) -> None:
        while not self._stopping:
            name = self._random.choice(sorted(self.ledger.names - {self.ledger.active[1]}))
            self.ledger.perhaps_active = name
            used = self._client.activate(name).encoder
            self.ledger.perhaps_active = None
            self.ledger.active = used.generation, used.name

    def _until_indexing(self) -> float:
        number = self._random.getrandbits(40)
        self._store({f"x{number}-{n}": f"oil filter {n}" for n in range(INDEX_AFTER + 1)})
        wait_until(lambda: bool(self._client.ready().indexing))
        return self._random.uniform(0, 0.5)

    def _until_checkpoint(self) -> float:
        before = self._steps_kept()

        def further() -> bool:
            if self._client.tuning_job(self.job_id).status == "interrupted":
                self._client.resume_tuning_job(self.job_id)
            return self._steps_kept() > before + 2

        wait_until(further, 120)
        return self._random.uniform(0, 0.1)

    def _steps_kept(self) -> int:
        """After how many steps the newest checkpoint is."""
        found = self.settings.checkpoints_dir(self.job_id).rglob("step-*.safetensors")
        return max((int(path.stem.removeprefix("step-")) for path in found), default=0)

    # What must be so afterwards

    def _verify(self) -> None:
        ledger = self.ledger
        found: dict[str, str] = {}
        cursor = None
        while True:
            page = self._client.passages(cursor, 1_000)
            found |= {each.id: each.text for each in page.passages}
            if (cursor := page.next_cursor) is None:
                break
        assert {id: found.get(id) for id in ledger.stored if id not in ledger.perhaps_deleted} == {
            id: text for id, text in ledger.stored.items() if id not in ledger.perhaps_deleted
        }
        assert not ledger.deleted & found.keys()
        asked = ledger.stored | ledger.perhaps
        assert {id: asked.get(id) for id in found} == found
        ledger.deleted |= ledger.perhaps_deleted - found.keys()
        ledger.stored, ledger.perhaps = found, {}
        ledger.perhaps_deleted = set()
        self._verify_encoders()
        self._verify_generation()
        with sqlite3.connect(self.settings.registry_path) as check:
            assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def _verify_encoders(self) -> None:
        ledger, artifacts = self.ledger, ArtifactStore(self.settings.artifacts_dir)
        records = self._registry.encoders.all()
        names = {record.name for record in records}
        assert ledger.names <= names <= ledger.names | {ledger.perhaps_named}
        assert sorted(artifacts.keys()) == sorted(record.key for record in records)
        for record in records:
            files = artifacts.files(record.key)
            assert record.state is EncoderState.READY
            assert digest_encoder(files, read_spec(files)) == record.digest
        if self.kills[-1].up_s is not None:
            assert list(artifacts.root.glob(".staging-*")) == []
        ledger.names, ledger.perhaps_named = names, None

    def _verify_generation(self) -> None:
        ledger, used = self.ledger, self._client.active_encoder().encoder
        allowed = {ledger.active}
        if ledger.perhaps_active is not None:
            allowed.add((ledger.active[0] + 1, ledger.perhaps_active))
        assert (used.generation, used.name) in allowed
        assert self._client.search("water pump").encoder.generation == used.generation
        assert [each.generation for each in self._client.history(1_000)] == [*range(used.generation, 0, -1)]
        ledger.active, ledger.perhaps_active = (used.generation, used.name), None

    def finish(self) -> int:
        """The job went on from its newest checkpoint whenever it went on. How often it did."""
        said = "going on from the checkpoint after step "
        resumed = 0
        for event in self._registry.events.after(self.job_id, 0, 10**6):
            told = str(event.data.get("message", ""))
            assert "cannot be read" not in told
            if told.startswith(said):
                resumed += 1
                assert int(told.removeprefix(said)) >= max(kill.kept for kill in self.kills if kill.at < event.at)
        self._client.cancel_tuning_job(self.job_id)
        wait_until(lambda: self._client.tuning_job(self.job_id).status == "cancelled")
        return resumed


PHASES = ("ingest", "indexing", "publish", "switch", "checkpoint")


@contextmanager
def campaign(settings: Settings, tiny: Path, seed: int) -> Iterator[Campaign]:
    with ExitStack() as stack:
        yield Campaign(settings, tiny, stack, seed)


def kill_in_each(
    phases: Sequence[str], settings: Settings, tiny: Path, dataset: Path, tmp_path: Path
) -> tuple[list[Kill], int]:
    """All kills, and how often the job went on from a checkpoint."""
    seed = random.randrange(10**6)
    print(f"the moments are those of seed {seed}")
    with campaign(settings, tiny, seed) as run:
        run.prepare(zip_folder(dataset, tmp_path / "pumps.zip"))
        for number, phase in enumerate(phases, start=1):
            run.kill_in(phase)
            print(number, run.kills[-1], flush=True)
        resumed = run.finish()
    print(
        f"{len(run.kills)} kills, {len(run.ledger.stored)} passages, {len(run.ledger.names)} encoders, generation "
        f"{run.ledger.active[0]}, resumed {resumed} times"
    )
    return run.kills, resumed


def test_after_a_kill_everything_acknowledged_is_there(
    settings: Settings, tiny: Path, dataset: Path, tmp_path: Path
) -> None:
    """While encoders are switched; ingest and indexing are killed in `tests/passages/test_edge.py`."""
    kills, _ = kill_in_each(["switch"], settings, tiny, dataset, tmp_path)
    assert kills[0].up_s is not None


@pytest.mark.nightly
def test_after_every_one_of_fifty_kills_everything_acknowledged_is_there(
    settings: Settings, tiny: Path, dataset: Path, tmp_path: Path
) -> None:
    kills, resumed = kill_in_each(PHASES * 10, settings, tiny, dataset, tmp_path)
    ups_s = sorted(kill.up_s for kill in kills if kill.up_s is not None)
    print(f"up in {median(ups_s):.1f} s, at most {ups_s[-1]:.1f} s")
    assert resumed
    assert median(ups_s) < 3 * UP_S  # others may be at work beside it
