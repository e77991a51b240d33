"""The mean of the weights of several tunings from one parent, a model soup (Wortsman et al. 2022, arXiv 2203.05482).

Runs that differ in nothing but their order move alike where the data says so, and by chance elsewhere: the mean keeps
the first and cancels much of the second, which is what other languages pay for.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from trainer.parameters import movement
from trainer.tune import TuneResult


def soup(runs: Sequence[TuneResult]) -> TuneResult:
    """One result with the mean weights, fp32; losses and looks stand one after the other, as the steps were made."""
    first = runs[0]
    if len(runs) == 1:
        return first
    tuned = {name: torch.stack([run.tuned[name] for run in runs]).mean(dim=0) for name in first.tuned}
    before, looks = 0, []
    for run in runs:
        looks += [replace(look, step=look.step + before) for look in run.looks]
        before += len(run.losses)
    return replace(
        first,
        tuned=tuned,
        losses=tuple(loss for run in runs for loss in run.losses),
        seconds=sum(run.seconds for run in runs),
        movement=movement(first.start, tuned),
        looks=tuple(looks),
        ended=next((run.ended for run in runs if run.ended), None),
    )
