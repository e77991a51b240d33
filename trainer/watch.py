"""Looks at a tuning under way, and whether what they saw should end it. Pure; who looks measures by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was measured after `step` steps."""

    step: int
    dev: float  # MRR@10
    drift: float  # the largest mean drift of any guard; 0 without guards


# watch(step, start, tuned): the model holds `tuned`, what the tuning would return if it ended now. A watch may load
# other weights, say softened ones, and change the model's mode: the tuning puts both back.
Watch = Callable[[int, Mapping[str, Tensor], Mapping[str, Tensor]], Look]


def should_end(looks: Sequence[Look], *, patience: int, drift_budget: float | None) -> str | None:
    """Why a tuning should end after these looks, in one sentence; None if it should go on. Patience 0 never ends."""
    if not looks:
        return None
    last = looks[-1]
    if drift_budget is not None and last.drift > drift_budget:
        return f"After step {last.step} the drift was {last.drift:.4f}, above the budget of {drift_budget:g}."
    best = best_look(looks, drift_budget=drift_budget)
    if best and patience and len(looks) - 1 - looks.index(best) >= patience:
        return f"Dev MRR@10 was best after step {best.step} ({best.dev:.4f}); looks without a rise since: {patience}."
    return None


def best_look(looks: Sequence[Look], *, drift_budget: float | None) -> Look | None:
    """The look with the best dev within the drift budget, the earliest of equals; None if none is within."""
    within = [look for look in looks if drift_budget is None or look.drift <= drift_budget]
    return max(within, key=lambda look: look.dev, default=None)
