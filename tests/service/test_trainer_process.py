"""`python -m trainer` as a process: it gives way to everybody else."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from tests.conftest import environment, wait_until
from trainer.__main__ import AUTOGROUP, NICENESS


def started(settings: Settings) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "trainer"], env=environment(settings), start_new_session=True)


def niceness(process: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[16])


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="the kernel weighs no sessions")
def test_a_session_of_its_own_is_as_nice_as_the_process(settings: Settings) -> None:
    trainer = started(settings)
    try:
        group = Path(f"/proc/{trainer.pid}/autogroup")
        wait_until(lambda: niceness(trainer) == NICENESS)
        wait_until(lambda: not group.read_text().endswith("nice 0\n"))
        assert group.read_text().endswith(f"nice {NICENESS}\n")
    finally:
        trainer.terminate()
        trainer.wait(30)
