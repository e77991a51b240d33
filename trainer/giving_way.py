"""Searches come first, wherever trainer and service share a machine: how a trainer keeps out of their way.

Two things, on Linux. Its scheduling class is `SCHED_IDLE`: a core that only it uses counts as free for whoever wakes
up, which niceness alone does not say (a woken search waits for the end of a nice task's slice, some 3 ms). And it
leaves cores alone that others need: where each core is taken a search waits, however little the trainer weighs.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

NICENESS = 15  # where there is no such class, and among those that are idle too
AUTOGROUP = Path("/proc/self/autogroup")
STAT = Path("/proc/stat")
TASKS = Path("/proc/self/task")
LOOK_S = 1.0
REMEMBERED = 5  # looks: cores come back when they were not needed for so long
BURST = 1.5  # times what others use is left to them
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def give_way() -> None:
    """Of the calling thread and of all that it starts.

    Linux may weigh whole sessions against each other (autogroups), and niceness then counts only within one: a
    trainer in a session of its own has to make that nice too.
    """
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # another system, or a kernel without autogroups
            AUTOGROUP.write_text(f"{NICENESS}\n")


def be_idle() -> None:
    """Of the calling thread, which computes, and of all that it starts. A thread that gives signs of life is not to be:
    on a machine that has nothing to spare, an idle one may not run for minutes."""
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # forbidden in some containers
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class Used(NamedTuple):
    """Seconds of processor time since some moment: of all that is not nice on our cores, and of it this process's."""

    at: float
    all_s: float
    own_s: float


class Room:
    """Keeps this process on fewer of its cores while others use them. Started once the libraries have counted cores."""

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        self._before = self._used()
        self._others: deque[float] = deque(maxlen=REMEMBERED)
        self._taken = len(self._cores)

    def start(self) -> None:
        threading.Thread(target=self._run, name="room", daemon=True).start()

    def look(self) -> int:
        """How many cores are taken from now on."""
        now = self._used()
        took_s = max(now.at - self._before.at, 1e-3)
        mine_s = now.own_s - self._before.own_s
        self._others.append(max(0.0, now.all_s - self._before.all_s - mine_s) / took_s)
        self._before = now
        wanted = cores_left(len(self._cores), max(self._others))
        if wanted != self._taken:
            self._taken = wanted
            keep_to(self._cores[-wanted:])
        return wanted

    def _run(self) -> None:
        while True:
            threading.Event().wait(LOOK_S)
            with suppress(OSError):  # /proc is not there, or cores were taken from the machine
                self.look()

    def _used(self) -> Used:
        times = os.times()
        return Used(times.elapsed, sum(busy_s(STAT.read_text(), self._cores)), times.system)


def cores_left(cores: int, others: float) -> int:
    """To a trainer on `cores` of which others use so many: at least one."""
    return max(1, round(cores - BURST * others))


def busy_s(stat: str, cores: list[int]) -> Iterator[float]:
    """Seconds that each of these cores was busy, by the lines of /proc/stat: user, nice, system, idle, iowait, irq,
    softirq, steal (proc(5)). What is nice in user mode does not count: other trainers would have to make room too."""
    names = {f"cpu{core}" for core in cores}
    for line in stat.splitlines():
        name, *fields = line.split()
        if name in names:
            ticks = [int(field) for field in fields[:8]]
            yield (sum(ticks) - ticks[1] - ticks[3] - ticks[4]) * TICK_S


def keep_to(cores: list[int]) -> None:
    """All threads of this process; those to come are started by one of them and do as it does."""
    for task in TASKS.iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(task.name), cores)
