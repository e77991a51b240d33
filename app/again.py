"""A thread that does the same again and again, until it is told to stop."""

import logging
import threading
from collections.abc import Callable

from app.errors import AdiabatError


class Again:
    """Takes its `steps` after every pause. What goes wrong with one is logged, and the next is taken all the same."""

    def __init__(
        self, name: str, pause_s: Callable[[], float], *steps: Callable[[], None], log: logging.Logger
    ) -> None:
        self._name = name
        self._pause_s = pause_s
        self._steps = steps
        self._log = log
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to do: this pause is over, or the next one."""
        self._woken.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def dismiss(self) -> None:
        """No step is begun any more; the one under way is not waited for."""
        self._stopping.set()
        self._woken.set()

    def stop(self) -> None:
        self.dismiss()
        self._thread.join()

    def quietly(self, step: Callable[[], None]) -> None:
        try:
            step()
        except AdiabatError as error:  # a part is away: it is tried again
            self._log.warning("%s waits: %s", self._name, error.detail)
        except Exception:  # a bug must not end the only thread that does this, nor the steps that come after
            self._log.exception("%s met a bug, and goes on", self._name)

    def _run(self) -> None:
        while True:
            self._woken.wait(self._pause_s())
            self._woken.clear()  # before the steps: what comes while they are taken is seen after them
            for step in self._steps:
                if self.stopping:
                    return
                self.quietly(step)
