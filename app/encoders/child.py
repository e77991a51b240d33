"""Children that read what strangers made: bounded in memory and time, gone with their parent, the first to be killed.

The parent starts one with `run_child`; the child calls `confine` before it looks at anything. What a child starts in
its turn has the same bounds and goes with it.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.errors import EncoderBroken, TooLarge

MAX_SAID_BYTES = 2**20
_PR_SET_PDEATHSIG = 1
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_SHARE = 0.75  # of the machine's memory: the service, which has its own, must not be what the kernel ends
# How a process ends that asked for more than it may have: Rust and C++ abort, the kernel kills.
_OUT_OF_MEMORY = {-signal.SIGABRT, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGBUS}
_SAYS_OUT_OF_MEMORY = (
    "MemoryError",
    "an't allocate memory",
    "bad_alloc",
    "memory allocation of",
    "annot allocate memory",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`memory_bytes` 0: three quarters of the machine's."""

    memory_bytes: int = 0
    timeout_s: float = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def last_word(self) -> str:
        """What it said last on standard error, else how it ended."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1].strip()[:500] if lines else f"exit status {self.status}"


def run_child(module: str, said: str, limits: Limits, *, doing: str) -> Ended:
    """Run `python -m module` with `said` on standard input. `doing` tells what it does, for refusals.

    Raises `EncoderBroken` where it takes too long, `TooLarge` where it wants more memory than it may have.
    """
    memory_bytes = limits.memory_bytes or usual_memory_bytes()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(memory_bytes), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "RUST_BACKTRACE": "0"},
        start_new_session=True,  # so that it and all it started can be ended together
    )
    try:
        out, err = child.communicate(said.encode(), timeout=limits.timeout_s)
    except subprocess.TimeoutExpired as error:
        raise EncoderBroken(
            f"{doing} did not end within {limits.timeout_s:g} s (ADIABAT_EXAMINE_TIMEOUT_S); it was given up."
        ) from error
    finally:
        _end(child)
    ended = Ended(status=child.returncode, out=_text(out), err=_text(err))
    if ran_out_of_memory(ended.err) or (not ended.out.strip() and ended.status in _OUT_OF_MEMORY):
        raise TooLarge(
            f"{doing} needs more than the {memory_bytes / 2**20:,.0f} MiB of memory that it may take "
            "(ADIABAT_EXAMINE_BYTES); it was given up."
        )
    return ended


def confine() -> str:
    """In the child, before anything else: take on the bounds of the command line. Returns what the parent said."""
    memory_bytes, parent = int(sys.argv[1]), int(sys.argv[2])
    # Of data, not of addresses: weights are mapped, and drivers reserve more addresses than any machine has memory.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:  # it ended before the lines above
        sys.exit("the parent ended before its child began")
    return sys.stdin.read()


def usual_memory_bytes() -> int:
    """Three quarters of what this machine or container has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _CGROUP_LIMIT.exists() and (said := _CGROUP_LIMIT.read_text().strip()).isdecimal():
        total = min(total, int(said))
    return int(total * _SHARE)


def ran_out_of_memory(said: str) -> bool:
    return any(words in said for words in _SAYS_OUT_OF_MEMORY)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """It and whatever it started; nothing of them may go on."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _text(said: bytes) -> str:
    return said[-MAX_SAID_BYTES:].decode(errors="replace")
