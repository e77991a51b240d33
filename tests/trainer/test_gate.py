"""The gate is a pure function of figures."""

from typing import Any

import numpy as np
import pytest

from app.recipe import Gate
from trainer.gate import judge
from trainer.statistics import compare_paired, lower_bound


def figures(difference: str, change: float, at_least: float, *, p: float = 1.0, drift: float = 0.0) -> dict[str, Any]:
    return {
        "before": 0.5,
        "after": 0.5 + change,
        difference: change,
        "at_least": at_least,
        "p_holm": p,
        "drift": drift,
        "queries": 60,
    }


def report(gain: tuple[float, float], *guards: tuple[float, float], **more: float) -> dict[str, Any]:
    """Of (difference, lower bound) each."""
    return {
        "dev": figures("gain", *gain),
        "guards": {f"g{n}": figures("change", *guard, **more) for n, guard in enumerate(guards)},
    }


@pytest.mark.parametrize(
    ("gain", "guards", "passed"),
    [
        ((0.1, 0.05), (), True),
        ((0.1, 0.05), ((0.0, -0.01), (-0.01, -0.019)), True),
        ((0.1, 0.05), ((0.2, 0.1), (-0.01, -0.021)), False),  # it lost little, but more is not ruled out
        ((0.1, 0.05), ((-0.03, -0.04),), False),
        ((0.1, -0.001), (), False),  # it gained, but perhaps by accident
        ((-0.1, -0.2), ((0.1, 0.05),), False),
    ],
)
def test_dev_must_gain_and_no_guard_may_fall_too_far_with_confidence(
    gain: tuple[float, float], guards: tuple[tuple[float, float], ...], passed: bool
) -> None:
    verdict = judge(Gate(), report(gain, *guards))
    assert verdict.passed is passed
    assert len(verdict.reasons) == 1 + len(guards)
    assert any("BROKEN" in reason for reason in verdict.reasons) is not passed
    assert verdict.held == {f"g{n}": at_least >= -0.02 for n, (_, at_least) in enumerate(guards)}


def test_what_asks_nothing_lets_everything_pass() -> None:
    assert judge(Gate(min_gain=-1, max_guard_loss=1), report((-1.0, -1.0), (-1.0, -1.0))).passed


def test_drift_is_asked_only_where_it_is_told_and_has_its_own_sentence() -> None:
    drifted = report((0.1, 0.05), (0.0, -0.01), drift=0.03)
    assert judge(Gate(), drifted).passed
    assert judge(Gate(max_drift=0.03), drifted).passed
    verdict = judge(Gate(max_drift=0.02), drifted)
    assert not verdict.passed
    assert verdict.held == {"g0": True}  # drift is not loss
    assert verdict.reasons[2] == "BROKEN: the queries of guard g0 drifted by 3.00e-02, up to 2.00e-02 is allowed"


def test_the_sentences_name_set_figures_and_confidence() -> None:
    gate = Gate(max_guard_loss=0.02, alpha=0.025)
    kept = judge(gate, report((0.1, 0.0512), (-0.001, -0.0112)))
    assert kept.reasons == (
        "kept: dev MRR@10 changed by +0.1000 (0.5000 to 0.6000), with 97.5% confidence by at least +0.0512, "
        "and +0.0000 is asked",
        "kept: guard g0 changed by -0.0010, with 97.5% confidence it lost at most 0.0112, "
        "and a loss up to 0.0200 is allowed",
    )
    gained = judge(gate, report((0.1, 0.05), (0.03, -0.00004)))
    assert gained.reasons[1] == (
        "kept: guard g0 changed by +0.0300, with 97.5% confidence it lost nothing, and a loss up to 0.0200 is allowed"
    )
    lost = judge(gate, report((0.1, 0.05), (-0.03, -0.0312), p=0.0004))
    assert lost.reasons[1] == (
        "BROKEN: guard g0 changed by -0.0300 (significant, p = 0.0004 after Holm), with 97.5% confidence it lost at "
        "most 0.0312, and a loss up to 0.0200 is allowed"
    )


def test_a_guard_or_a_dev_too_small_to_show_it_is_told_so() -> None:
    verdict = judge(Gate(), report((0.01, -0.01), (-0.001, -0.05)))
    assert verdict.reasons == (
        "BROKEN: dev MRR@10 changed by +0.0100 (0.5000 to 0.5100), but its 60 questions are too few to show it: "
        "with 95% confidence by at least -0.0100, and +0.0000 is asked; add questions",
        "BROKEN: guard g0 changed by -0.0010, but its 60 questions are too few to show a loss of no more than "
        "0.0200: with 95% confidence it lost at most 0.0500; add questions or allow more",
    )


def test_a_guard_without_any_change_passes_by_its_size_only() -> None:
    """From values to verdict: the same encoder twice, on 30 and on 600 questions."""

    def guard(count: int) -> dict[str, Any]:
        same, clusters = np.full(count, 0.8), np.arange(count)
        found = compare_paired(same, same, clusters)
        bound = lower_bound(same, same, clusters, alpha=0.05)
        return figures("change", found.mean, bound, p=found.p) | {"queries": count}

    dev = figures("gain", 0.1, 0.05)
    assert judge(Gate(), {"dev": dev, "guards": {"large": guard(600)}}).passed
    small = judge(Gate(), {"dev": dev, "guards": {"small": guard(30)}})
    assert not small.passed
    assert "its 30 questions are too few" in small.reasons[1]
