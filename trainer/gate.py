"""The gate: may a tuned encoder become active? A pure function of figures, with a sentence per rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.recipe import Gate


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    passed: bool
    reasons: tuple[str, ...]  # one per rule, kept and broken alike


def judge(gate: Gate, report: Mapping[str, Any]) -> Verdict:
    """`report` is what `evaluate.compare` returns: MRR@10 of dev and guards, before and after."""
    gain = report["dev"]["after"] - report["dev"]["before"]
    rules = [(gain > gate.min_gain, f"dev MRR@10 changed by {gain:+.4f}, more than {gate.min_gain:+.4f} is asked")]
    for name, guard in report["guards"].items():
        change = guard["after"] - guard["before"]
        rules.append(
            (
                change >= -gate.max_guard_loss,
                f"guard {name} changed by {change:+.4f}, a loss up to {gate.max_guard_loss:.4f} is allowed",
            )
        )
    return Verdict(
        passed=all(kept for kept, _ in rules),
        reasons=tuple(f"{'kept' if kept else 'BROKEN'}: {sentence}" for kept, sentence in rules),
    )
