"""Runs `edge_child` processes, one at a time: they are to stay out of the way. All end with the store."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson

from app.errors import Unavailable

_SOURCE_ROOT = str(Path(__file__).parents[2])


class TimedOut(Unavailable):
    """A child had no more time: nothing is known of what it looked at."""


class Children:
    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._state = threading.Lock()
        self._closed = False
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def turn(self) -> threading.Lock:
        """Hold it from before the copy until the child's work is taken over: one copy on disk at a time."""
        return self._turn

    def run(self, *arguments: str, timeout_s: float | None = None) -> dict[str, Any]:
        """Waits for the child's result. Raises Unavailable if it fails, hangs, or the store is closed meanwhile."""
        child = self._start(arguments)
        try:
            out, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.communicate()
            raise TimedOut(f"Background work on the passages did not end within {timeout_s:g} s.") from error
        if self._closed:
            raise Unavailable("The passage store is closed.")
        if child.returncode != 0:
            said = err.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise Unavailable(f"Background work on the passages ended with {child.returncode}: {said[-1]}")
        result: dict[str, Any] = orjson.loads(out)
        return result

    def close(self) -> None:
        with self._state:
            self._closed = True
            if self._child is not None:
                self._child.kill()

    def _start(self, arguments: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join(filter(None, [_SOURCE_ROOT, os.environ.get("PYTHONPATH")]))
        with self._state:
            if self._closed:
                raise Unavailable("The passage store is closed.")
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "app.passages.edge_child", "--parent", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
            return self._child
