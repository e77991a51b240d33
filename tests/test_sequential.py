"""The sequential test against a calculation by hand, and against chance under constant looks."""

import math

import numpy as np
import pytest

from app.sequential import Effect

ALPHA = 0.05


def test_evidence_and_interval_are_those_of_a_calculation_by_hand() -> None:
    """V = 0.01, s = 0.1: V + s^2 = 0.02; t = 0.4: sqrt(1/2) * exp(0.01 * 0.16 / (2 * 0.01 * 0.02)) = sqrt(1/2) e^4."""
    effect = Effect(estimate=0.4, variance=0.01, spread=0.1)
    assert math.exp(effect.log_evidence) == pytest.approx(math.sqrt(0.5) * math.exp(4))
    assert effect.p_value == pytest.approx(math.sqrt(2) * math.exp(-4))  # 0.0259
    assert effect.decided(0.03)
    assert not effect.decided(0.02)
    low, high = effect.interval(ALPHA)
    half = math.sqrt(0.02 * (math.log(2) - 2 * math.log(0.05)))  # 0.3657
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half))


@pytest.mark.parametrize("estimate", [-0.3, 0.02, 0.11])
@pytest.mark.parametrize("variance", [1e-4, 0.003, 0.2])
def test_it_decides_where_the_interval_is_clear_of_nothing(estimate: float, variance: float) -> None:
    effect = Effect(estimate=estimate, variance=variance, spread=0.2)
    low, high = effect.interval(ALPHA)
    assert effect.decided(ALPHA) == (low > 0 or high < 0) == (effect.p_value <= ALPHA)


def test_no_effect_is_seldom_taken_for_one_though_every_request_is_looked_at() -> None:
    """Means of fair +1 and -1 with the sum of squares as variance: there it holds for every sample, the first too."""
    rng = np.random.default_rng(1)
    runs, looks = 4_000, 1_000
    sums = rng.choice([-1.0, 1.0], size=(runs, looks)).cumsum(axis=1)
    n = np.arange(1, looks + 1)
    v, s2 = 1 / n, 0.25
    evidence = np.sqrt(v / (v + s2)) * np.exp(s2 * (sums / n) ** 2 / (2 * v * (v + s2)))
    ever = (evidence >= 1 / ALPHA).any(axis=1)
    some = Effect(estimate=float(sums[0, 499] / 500), variance=1 / 500, spread=0.5)
    assert math.exp(some.log_evidence) == pytest.approx(evidence[0, 499])
    assert ever.mean() <= ALPHA
    # The same looks at a test for one look err in a third of the runs.
    assert (np.abs(sums[:, 9:]) / np.sqrt(n[9:]) > 1.96).any(axis=1).mean() > 0.3
