"""The gate is a pure function of figures."""

from typing import Any

import pytest

from app.recipe import Gate
from trainer.gate import judge


def report(gain: float, *guards: float) -> dict[str, Any]:
    return {
        "dev": {"before": 0.5, "after": 0.5 + gain},
        "guards": {f"g{n}": {"before": 0.5, "after": 0.5 + change} for n, change in enumerate(guards)},
    }


@pytest.mark.parametrize(
    ("gain", "guards", "passed"),
    [
        (0.1, (), True),
        (0.1, (0.0, -0.009), True),
        (0.1, (0.2, -0.011), False),
        (0.0, (), False),
        (-0.1, (0.1,), False),
    ],
)
def test_dev_must_gain_and_no_guard_may_fall_too_far(gain: float, guards: tuple[float, ...], passed: bool) -> None:
    verdict = judge(Gate(), report(gain, *guards))
    assert verdict.passed is passed
    assert len(verdict.reasons) == 1 + len(guards)
    assert any("BROKEN" in reason for reason in verdict.reasons) is not passed


def test_the_sentence_of_a_broken_rule_names_the_guard_and_both_figures() -> None:
    verdict = judge(Gate(max_guard_loss=0.02), report(0.1, -0.03))
    assert verdict.reasons[1] == "BROKEN: guard g0 changed by -0.0300, a loss up to 0.0200 is allowed"
