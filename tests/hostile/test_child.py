"""What a child may take, and that nothing of it is left."""

import json
from pathlib import Path

import pytest

from app.encoders.child import Limits, run_child, usual_memory_bytes
from app.errors import EncoderBroken, TooLarge
from tests.conftest import wait_until

MODULE = "tests.hostile.greedy"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def test_a_child_that_takes_all_memory_is_given_up_with_the_setting_named() -> None:
    limits = Limits(memory_bytes=300 * 2**20, timeout_s=60)
    with pytest.raises(TooLarge, match="more than the 300 MiB") as refused:
        run_child(MODULE, json.dumps({"kind": "memory"}), limits, doing="Examining the encoder")
    assert "ADIABAT_EXAMINE_BYTES" in refused.value.detail


def test_a_child_that_never_ends_is_given_up_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "helper"
    said = json.dumps({"kind": "time", "note": str(note)})
    with pytest.raises(EncoderBroken, match="ADIABAT_EXAMINE_TIMEOUT_S"):
        run_child(MODULE, said, Limits(timeout_s=5), doing="Examining the encoder")
    state = Path(f"/proc/{note.read_text()}/stat")
    wait_until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_without_a_setting_a_child_may_take_most_of_the_memory_and_not_all() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < usual_memory_bytes() < total
