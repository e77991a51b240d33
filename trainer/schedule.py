"""The learning rate's course, as a pure function of the step, so that a run can be resumed."""

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def rate_factor(step: int, steps: int, *, warmup: float, schedule: Schedule) -> float:
    """What the peak rate is multiplied with at `step` (from 0) of `steps`: above 0, at most 1.

    Rises linearly over the first `warmup` share of the steps, then falls towards 0 by `schedule`. No step
    gets exactly 0: it would be a step for nothing.
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / (steps - rising)  # from 0, below 1
    if schedule == "linear":
        return 1 - progress
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0
