"""Rules by which a canary ends: on clicks, and on how its searches go beside those of the active encoder.

Each compares the two encoders over the same time, so a slow disk or a strange day, which both feel, ends nothing. The
rule on clicks is the sequential test over the whole experiment, at the rules' `alpha`; the others look at the newest
`window_s` and act where a difference is beyond what they allow even at the near end of its interval (`SURE`).
"""

import threading
from collections import defaultdict
from collections.abc import Mapping

from app.registry import Rules, Tally
from app.registry.experiments import Role
from app.registry.signals import Signal
from app.sequential import Effect
from app.verdicts import Finding

SURE = 0.001  # error rate of the intervals over a window
SPREAD = 0.1  # of differences of shares and of scores, as they are expected


class Seen:
    """What this process saw since it was last taken: costs a search a lock and a few sums."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[int, Role], Signal] = defaultdict(Signal)

    def saw(self, generation: int, role: Role, signal: Signal) -> None:
        with self._lock:
            self._sums[generation, role] += signal

    def take(self) -> dict[tuple[int, Role], Signal]:
        with self._lock:
            taken, self._sums = self._sums, defaultdict(Signal)
        return dict(taken)


def broken(rules: Rules, tally: Tally, found: Finding, signals: Mapping[Role, Signal]) -> str | None:
    """The first rule that the canary breaks, in words; None: it may stay."""
    arms = (tally.active, tally.canary)
    if rules.clicks and found.verdict == "worse" and min(arm.requests for arm in arms) >= rules.min_requests:
        return f"Rule clicks: {found.said}"
    active, canary = signals["active"], signals["canary"]
    if min(active.requests, canary.requests) < rules.min_requests:
        return None
    for name, allowed, words in (("errors", rules.errors, "failed"), ("empty", rules.zero_hits, "found nothing")):
        if allowed is not None and _over(getattr(active, name), getattr(canary, name), active, canary, allowed):
            return (
                f"Rule {'zero_hits' if name == 'empty' else name}: {getattr(canary, name) / canary.requests:.1%} of "
                f"{canary.requests:,} searches of the canary {words} in the last {rules.window_s:g} s, "
                f"{getattr(active, name) / active.requests:.1%} of {active.requests:,} of the active encoder; "
                f"{allowed * 100:g} points more are allowed."
            )
    timed = min(active.timed, canary.timed) >= rules.min_requests
    if rules.latency is not None and timed and _slower(active, canary, rules.latency):
        return (
            f"Rule latency: {_ms(canary):.1f} ms in the mean of {canary.timed:,} searches of the canary in the last "
            f"{rules.window_s:g} s, {_ms(active):.1f} ms of {active.timed:,} of the active encoder; "
            f"{rules.latency:g} times as much is allowed."
        )
    scored = min(active.scored, canary.scored) >= rules.min_requests
    if rules.score_shift is not None and scored and _shifted(active, canary, rules.score_shift):
        return (
            f"Rule score_shift: the best hits score {canary.score / canary.scored:.3f} in the mean of "
            f"{canary.scored:,} queries of the canary in the last {rules.window_s:g} s, "
            f"{active.score / active.scored:.3f} of {active.scored:,} of the active encoder; "
            f"{rules.score_shift:g} apart is allowed."
        )
    return None


def _over(of_active: int, of_canary: int, active: Signal, canary: Signal, allowed: float) -> bool:
    share = (of_active + of_canary) / (active.requests + canary.requests)
    if not 0 < share < 1:
        return False
    variance = share * (1 - share) * (1 / active.requests + 1 / canary.requests)
    estimate = of_canary / canary.requests - of_active / active.requests
    return Effect(estimate=estimate, variance=variance, spread=SPREAD).interval(SURE)[0] > allowed


def _slower(active: Signal, canary: Signal, times: float) -> bool:
    mean = active.seconds / active.timed
    variance = _time_variance(canary) + times**2 * _time_variance(active)
    if variance <= 0 or mean <= 0:
        return False
    estimate = canary.seconds / canary.timed - times * mean
    return Effect(estimate=estimate, variance=variance, spread=mean).interval(SURE)[0] > 0


def _shifted(active: Signal, canary: Signal, allowed: float) -> bool:
    """Either way: `interval` is two-sided, so the distance is held to the same error rate."""
    distance = abs(canary.score / canary.scored - active.score / active.scored)
    variance = sum(_variance(each.scored, each.score, each.score_squared) for each in (active, canary))
    if variance <= 0:
        return distance > allowed
    return Effect(estimate=distance, variance=variance, spread=SPREAD).interval(SURE)[0] > allowed


def _time_variance(signal: Signal) -> float:
    return _variance(signal.timed, signal.seconds, signal.seconds_squared)


def _variance(n: int, total: float, squares: float) -> float:
    """Of the mean of `n` values with this sum, and this sum of their squares."""
    return max(squares / n - (total / n) ** 2, 0.0) / n


def _ms(signal: Signal) -> float:
    return 1000 * signal.seconds / signal.timed
