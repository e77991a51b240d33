"""`python -m trainer` as a process: it gives way to everybody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.registry import Registry
from app.settings import Settings
from tests.conftest import environment, wait_until
from trainer.giving_way import AUTOGROUP, NICENESS, busy_s, cores_left

CORES = os.sched_getaffinity(0)
ROOT = Path(__file__).resolve().parents[2]
BUSY = "while True: pass"


def started(settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainer", "--stop-with", str(os.getpid())]
    return subprocess.Popen(command, env=environment(settings), start_new_session=True)


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


@pytest.mark.skipif(len(CORES) < 2, reason="there is no core to leave")
def test_its_work_is_idle_but_no_sign_of_life_and_leaves_a_core_to_whoever_needs_it(settings: Settings) -> None:
    registry = Registry(settings.registry_at)
    trainer, others = started(settings), list[subprocess.Popen[bytes]]()
    try:
        wait_until(lambda: bool(registry.workers.ages_s()))  # all is imported
        others += [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in CORES]

        def threads() -> list[int]:
            return [int(each.name) for each in Path(f"/proc/{trainer.pid}/task").iterdir()]

        wait_until(lambda: {len(os.sched_getaffinity(each)) for each in threads()} == {1})
        assert os.sched_getscheduler(trainer.pid) == os.SCHED_IDLE
        assert {os.sched_getscheduler(each) for each in threads()} == {os.SCHED_IDLE, os.SCHED_OTHER}
    finally:
        for each in others:
            each.kill()
            each.wait()
        trainer.terminate()
        trainer.wait(30)
        registry.close()


ROOM = """
import os, sys, threading, time
from pathlib import Path
import torch
from trainer import giving_way

giving_way.STAT = Path(sys.argv[1])
room, computing = giving_way.Room(), torch.get_num_threads()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
for line in sys.stdin:
    taken = room.look()
    tasks = [len(os.sched_getaffinity(int(each.name))) for each in giving_way.TASKS.iterdir()]
    print(taken, min(tasks), max(tasks), torch.get_num_threads() == computing, flush=True)
"""


def stat(busy_s: float) -> str:
    """As the kernel tells it, with so many seconds of each core used by others."""
    ticks = int(busy_s * os.sysconf("SC_CLK_TCK"))
    lines = [f"cpu{core} {ticks} 0 0 900 10 0 0 0 0 0" for core in sorted(CORES)]
    return "\n".join(["cpu 1 2 3 4 5 6 7 8 0 0", *lines, "ctxt 5"])


@pytest.mark.skipif(len(CORES) < 2, reason="there is no core to leave")
def test_cores_come_back_once_they_were_not_needed_for_a_while(tmp_path: Path) -> None:
    told = tmp_path / "stat"
    told.write_text(stat(0))
    command = [sys.executable, "-c", ROOM, str(told)]
    pipe = subprocess.PIPE
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # that of all tests
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        asked, answers = child.stdin, child.stdout

        def looked() -> str:
            print("look", file=asked, flush=True)
            return answers.readline().strip()

        every = len(CORES)
        assert looked() == f"{every} {every} {every} True"
        told.write_text(stat(1_000_000))
        assert looked() == "1 1 1 True"  # computing with as many threads as before: the same bits
        assert [looked() for _ in range(5)] == ["1 1 1 True"] * 4 + [f"{every} {every} {every} True"]


def test_others_use_of_our_cores_is_read_and_left_to_them_with_half_as_much_again() -> None:
    told = (
        "cpu 9 9 9 9 9 9 9 9 0 0\ncpu0 100 20 30 4000 50 6 7 8 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\ncpu10 7 0 0 0 0 0 0 0 0 0"
    )
    assert list(busy_s(told, [0, 10])) == pytest.approx([151 / os.sysconf("SC_CLK_TCK"), 7 / os.sysconf("SC_CLK_TCK")])
    assert [cores_left(2, others) for others in (0, 0.1, 0.5, 1, 2)] == [2, 2, 1, 1, 1]
    assert [cores_left(16, others) for others in (0, 0.1, 4, 12)] == [16, 16, 10, 1]
