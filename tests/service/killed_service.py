"""`adiabat` whose service is killed by SIGKILL at the commit of what a call makes, before or behind it.

MOMENT in the environment says which: IN_TRANSACTION, when the answer was noted, or COMMITTED, before it is sent.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from app.cli import main
from app.registry import Encoders, IdempotencyKeys, Jobs

MOMENT = "ADIABAT_TEST_KILLED"
IN_TRANSACTION = "in-transaction"
COMMITTED = "committed"


def deadly(work: Callable[..., Any]) -> Callable[..., Any]:
    def done_and_killed(*given: Any) -> None:
        work(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    return done_and_killed


if __name__ == "__main__":
    if os.environ[MOMENT] == IN_TRANSACTION:
        IdempotencyKeys.finish = staticmethod(deadly(IdempotencyKeys.finish))  # type: ignore[method-assign]
    else:
        Jobs.add = deadly(Jobs.add)  # type: ignore[method-assign]
        Encoders.add = deadly(Encoders.add)  # type: ignore[method-assign]
    main()
