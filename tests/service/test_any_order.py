"""Register, activate, roll back, delete, crash, in any order, against a plain model of the contract.

Real registry, artifacts, engines and slot; a crash is the same folder opened again, with what a process killed at that
moment would have left in it.
"""

import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.api.encoders import delete_encoder
from app.assembly import assemble
from app.encoders.artifacts import BASE_KEY, ArtifactStore
from app.encoders.loaded import EngineSettings, load_encoder
from app.encoders.pool import EncoderPool
from app.encoders.query_cache import QueryCache
from app.encoders.slot import Slot
from app.encoders.switching import Switcher
from app.errors import Conflict, EncoderInUse, EncoderNotFound, StaleGeneration
from app.observe.metrics import Metrics
from app.passages.disk import copy_tree
from app.registry import EncoderState, NewEncoder, Registry
from app.settings import Settings
from tests.service import encoders

MADE = ("bees@1", "wasps@1", "ants@1")
PICKED = st.integers(0, 11)
NAMES = st.sampled_from(("red", "green", "blue"))


class Killed(BaseException):
    """The process ended here."""


@pytest.fixture(scope="module")
def stock(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three encoders beside the base, registered as users do."""
    folder = tmp_path_factory.mktemp("orders")
    copy_tree(seeded, folder / "data")
    with ExitStack() as stack:
        plain = Settings(data_dir=folder / "data", passage_encoder=str(tiny), trainer=False, threads=1)
        parts = assemble(plain, stack)
        from app.encoders.admission import Candidate

        for seed, key in enumerate(MADE, 1):
            source = encoders.near(tiny, folder / key, seed=seed)
            parts.registrar.register(Candidate(name=key.partition("@")[0], source=source))
    return folder / "data"


class Process:
    """What of a service the contract is about, opened on a folder."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(folder / "registry.db")
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.artifacts.sweep_half_made()
        self.registry.encoders.sweep(self.artifacts.keys(), self.artifacts.set_aside)
        self.slot = Slot()
        metrics, cache = Metrics(), QueryCache(0)
        engine = EngineSettings(
            kind="onnx", precision="fp32", threads=1, map_weights=False, max_waiting=64, max_wait_s=30
        )
        self.pool = EncoderPool(
            lambda record: load_encoder(self.artifacts, record, engine, cache, metrics),
            lambda: self.switcher.pinned_ids(),
            max_bytes=0,  # whoever is not pinned leaves at once
            observer=metrics,
        )
        self.switcher = Switcher(self.registry, self.pool, self.slot, metrics)
        self.pool.get(self.registry.encoders.find(BASE_KEY))
        self.switcher.start()
        self.switcher.load_previous()
        self.parts: Any = SimpleNamespace(
            registry=self.registry, artifacts=self.artifacts, pool=self.pool, switcher=self.switcher
        )

    def end(self) -> None:
        self.pool.close()
        self.registry.close()


class AnyOrder(RuleBasedStateMachine):
    stock: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.copytree(self.stock / "artifacts", self.folder / "artifacts", symlinks=True)
        shutil.copy(self.stock / "registry.db", self.folder)
        self.process = Process(self.folder)
        self.history = [BASE_KEY]
        self.alive = {BASE_KEY, *MADE}
        self.known = [BASE_KEY, *MADE]  # deleted ones too

    def teardown(self) -> None:
        self.process.end()

    @rule(name=NAMES, of=st.sampled_from(MADE))
    def register(self, name: str, of: str) -> None:
        record, new = self._add(name, of, self._place(of))
        assert (record.key in self.alive) is not new
        self.alive.add(record.key)
        if new:
            self.known.append(record.key)

    @rule(name=NAMES, of=st.sampled_from(MADE))
    def die_while_registering(self, name: str, of: str) -> None:
        place = self._place(of)

        def placed_and_killed(key: str) -> None:
            place(key)
            raise Killed

        try:
            record, new = self._add(name, of, placed_and_killed)
            assert (record.key in self.alive, new) == (True, False)  # it was there: nothing was placed
        except Killed:
            self.crash()

    @rule(which=PICKED, expected=st.sampled_from(("none", "right", "stale")))
    def activate(self, which: int, expected: str) -> None:
        key = self._key(which)
        name, _, version = key.partition("@")
        generation = {"none": None, "right": len(self.history), "stale": len(self.history) - 1}[expected]
        try:
            switched = self.process.switcher.activate(name, int(version), expected=generation)
        except StaleGeneration:
            assert expected == "stale"
        except Conflict:
            assert key not in self.alive
        else:
            assert key in self.alive
            assert expected != "stale"
            self._activated(key)
            assert switched.active.generation == len(self.history)

    @rule()
    def roll_back(self) -> None:
        before = list(self.history)
        try:
            self.process.switcher.rollback()
        except Conflict:
            assert len(before) < 2
        else:
            self._activated(before[-2])

    @rule()
    def roll_back_twice(self) -> None:
        if len(self.history) < 2:
            return
        active = self.history[-1]
        self.roll_back()
        self.roll_back()
        assert self.process.slot.current.encoder.record.key == active

    @rule(which=PICKED)
    def delete(self, which: int) -> None:
        self._delete(self._key(which))

    @rule()
    def delete_what_is_needed(self) -> None:
        for key in (BASE_KEY, *self.history[-2:]):
            self._delete(key)

    def _delete(self, key: str) -> None:
        needed = {BASE_KEY, *self.history[-2:]}
        try:
            delete_encoder(key, self.process.parts)
        except EncoderInUse:
            assert key in needed
        else:
            assert key not in needed
            self.alive.discard(key)

    @rule(one=PICKED, other=PICKED)
    def activate_two_at_once(self, one: int, other: int) -> None:
        wanted = [key for key in map(self._key, (one, other)) if key in self.alive]
        threads = [threading.Thread(target=self._activate, args=(key,)) for key in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        grown = [item.encoder for item in self.process.registry.activations.newest(1_000)][::-1]
        assert grown[: len(self.history)] == self.history
        assert len(grown) - len(self.history) <= len(wanted)
        assert set(grown[len(self.history) :]) <= set(wanted)
        self.history = grown

    @rule()
    def crash(self) -> None:
        self.process.end()
        self.process = Process(self.folder)

    @rule(which=PICKED)
    def die_while_switching(self, which: int) -> None:
        """The history is written, the slot is not: the next start takes it up."""
        key = self._key(which)
        if key not in self.alive or key == self.history[-1]:
            return
        record = self.process.registry.encoders.find(key)
        self.process.registry.activations.append(record.id, reason="activate")
        self.history.append(key)
        self.crash()

    @invariant()
    def the_history_is_what_happened(self) -> None:
        found = self.process.registry.activations.newest(1_000)[::-1]
        assert [item.generation for item in found] == list(range(1, len(found) + 1))
        assert [item.encoder for item in found] == self.history

    @invariant()
    def the_slot_has_the_newest_and_the_one_before_it_is_in_memory(self) -> None:
        active = self.process.slot.current
        assert (active.encoder.record.key, active.generation) == (self.history[-1], len(self.history))
        assert (active.previous.key if active.previous else None) == (self.history[-2:-1] or [None])[0]
        resident = {encoder.record.key for encoder in self.process.pool.resident()}
        assert {BASE_KEY, *self.history[-2:]} <= resident

    @invariant()
    def what_is_registered_is_on_disk_and_nothing_else(self) -> None:
        records = {record.key: record.state for record in self.process.registry.encoders.all()}
        assert set(records) == self.alive == set(self.process.artifacts.keys())
        assert set(records.values()) == {EncoderState.READY}

    @invariant()
    def the_active_encoder_answers(self) -> None:
        loaded = self.process.slot.current.encoder
        vectors = loaded.dispatcher.submit(["water"], loaded.spec.query_prompt).result(30)
        assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-4)

    def _key(self, which: int) -> str:
        return self.known[which % len(self.known)]

    def _activated(self, key: str) -> None:
        if key != self.history[-1]:
            self.history.append(key)

    def _activate(self, key: str) -> None:
        name, _, version = key.partition("@")
        self.process.switcher.activate(name, int(version))

    def _add(self, name: str, of: str, place: Any) -> Any:
        template = Registry(self.stock / "registry.db")
        record = template.encoders.find(of)
        template.close()
        fields = {field: getattr(record, field) for field in NewEncoder.__slots__} | {"name": name}
        return self.process.registry.encoders.add(NewEncoder(**fields), place)

    def _place(self, of: str) -> Any:
        def place(key: str) -> None:
            with self.process.artifacts.staging() as staging:
                shutil.copytree(self.stock / "artifacts" / of, staging, dirs_exist_ok=True)
                self.process.artifacts.place(staging, key)

        return place


@pytest.mark.parametrize("orders", [8, pytest.param(100, marks=pytest.mark.nightly)])
def test_any_order_of_calls_and_crashes_keeps_the_contract(stock: Path, tmp_path: Path, orders: int) -> None:
    places = {"stock": stock, "folder": tmp_path / "orders"}
    machine: Any = type("AnyOrderHere", (AnyOrder,), places)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=orders,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_name_that_was_never_registered_is_found_by_nobody(stock: Path, tmp_path: Path) -> None:
    copy_tree(stock, tmp_path / "data")
    process = Process(tmp_path / "data")
    with pytest.raises(EncoderNotFound):
        process.switcher.activate("nobody", 1)
    process.end()
