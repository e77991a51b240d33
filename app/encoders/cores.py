"""How many cores this process may really use, and what yields them to others."""

import math
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_NICE = 10


def allowed_cores() -> float:
    """By the process's affinity and the container's quota; may be a fraction."""
    allowed = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    if CGROUP_LIMIT.exists():
        quota, period = CGROUP_LIMIT.read_text().split()
        if quota != "max":
            allowed = min(allowed, int(quota) / int(period))
    return allowed


def whole_cores() -> int:
    """At least one."""
    return max(1, math.floor(allowed_cores()))


def lower_priority() -> None:
    """Of this thread alone, so that a search that comes meanwhile gets the core."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        own = threading.get_native_id()
        with suppress(OSError):  # where it is forbidden: what the thread is for goes on all the same
            os.setpriority(os.PRIO_PROCESS, own, max(os.getpriority(os.PRIO_PROCESS, own), _NICE))
