"""The gate: may a tuned encoder become active? A pure function of figures, with a sentence per rule.

Every guard must hold at level alpha by itself, so the whole promise is no weaker than its parts and needs no
correction for their number (an intersection-union test; Berger 1982).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.recipe import Gate


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    passed: bool
    reasons: tuple[str, ...]  # one per rule, kept and broken alike
    held: Mapping[str, bool]  # by guard: did it lose too little to matter


def judge(gate: Gate, report: Mapping[str, Any]) -> Verdict:
    """`report` is what `evaluate.compare` returns for the prove halves, with the gate's alpha."""
    held = {name: guard["at_least"] >= -gate.max_guard_loss for name, guard in report["guards"].items()}
    rules = [_gain(gate, report["dev"])]
    rules += [(held[name], _loss(gate, name, guard, held[name])) for name, guard in report["guards"].items()]
    rules += _drift(gate, report["guards"])
    return Verdict(
        passed=all(kept for kept, _ in rules),
        reasons=tuple(f"{'kept' if kept else 'BROKEN'}: {sentence}" for kept, sentence in rules),
        held=held,
    )


def _gain(gate: Gate, dev: Mapping[str, Any]) -> tuple[bool, str]:
    kept = dev["at_least"] >= gate.min_gain
    said = f"dev MRR@10 changed by {dev['gain']:+.4f} ({dev['before']:.4f} to {dev['after']:.4f})"
    shown = f"{_confidently(gate)} by at least {dev['at_least']:+.4f}, and {gate.min_gain:+.4f} is asked"
    if not kept and dev["gain"] >= gate.min_gain:
        return kept, f"{said}, but its {dev['queries']} questions are too few to show it: {shown}; add questions"
    return kept, f"{said}, {shown}"


def _loss(gate: Gate, name: str, guard: Mapping[str, Any], held: bool) -> str:
    said = f"guard {name} changed by {guard['change']:+.4f}"
    if guard["change"] < 0 and guard["p_holm"] <= gate.alpha:
        said += f" (significant, p = {guard['p_holm']:.4f} after Holm)"
    loss = f"{max(0.0, -guard['at_least']):.4f}"
    lost = f"at most {loss}" if float(loss) else "nothing"
    shown = f"{_confidently(gate)} it lost {lost}"
    if held or guard["change"] < -gate.max_guard_loss:
        return f"{said}, {shown}, and a loss up to {gate.max_guard_loss:.4f} is allowed"
    return (
        f"{said}, but its {guard['queries']} questions are too few to show a loss of no more than "
        f"{gate.max_guard_loss:.4f}: {shown}; add questions or allow more"
    )


def _drift(gate: Gate, guards: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    if gate.max_drift is not None:
        for name, guard in guards.items():
            said = f"the queries of guard {name} drifted by {guard['drift']:.2e}, up to {gate.max_drift:.2e} is allowed"
            yield guard["drift"] <= gate.max_drift, said


def _confidently(gate: Gate) -> str:
    return f"with {100 * (1 - gate.alpha):g}% confidence"
