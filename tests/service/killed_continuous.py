"""`adiabat` whose continuous tuning looks all the time, and is killed by SIGKILL at the commit of its first step.

MOMENT in the environment says which side: IN_TRANSACTION, or COMMITTED, before anything here has heard of it; without
it nobody is killed.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from app import continuous
from app.cli import main
from app.registry import Activations, Continuous, Jobs

MOMENT = "ADIABAT_TEST_KILLED"
IN_TRANSACTION = "in-transaction"
COMMITTED = "committed"


def deadly(work: Callable[..., Any], where: str = "") -> Callable[..., Any]:
    """`where` is an argument without which nobody is killed."""

    def done_and_killed(*given: Any, **named: Any) -> Any:
        done = work(*given, **named)
        if not where or named.get(where):
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return done_and_killed


if __name__ == "__main__":
    continuous.LOOK_S = 0.1
    if os.environ.get(MOMENT) == IN_TRANSACTION:
        Continuous.append = staticmethod(deadly(Continuous.append))  # type: ignore[method-assign]
    if os.environ.get(MOMENT) == COMMITTED:
        Jobs.add = deadly(Jobs.add)  # type: ignore[method-assign]
        Activations.advance = deadly(Activations.advance, "also")  # type: ignore[method-assign]
    main()
