"""How far a tuning has come: the weights and all that is carried from step to step. Checkpoints hold just this."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from app.recipe import FixedRecipe
from trainer.lessons import ParentView
from trainer.parameters import copy_parameters, load_parameters, rate_scales
from trainer.schedule import rate_factor
from trainer.watch import Look, Watch, best_look


class Progress:
    """The state of a run of `steps` steps over `parameters`, which it moves in place."""

    def __init__(self, parameters: dict[str, Parameter], parent: ParentView, recipe: FixedRecipe, steps: int) -> None:
        self.parameters = parameters
        self.parent = parent
        self.began = time.monotonic()  # as if it had never stopped
        self.losses: list[float] = []  # one per step done
        self.looks: list[Look] = []
        self.mean: dict[str, Tensor] = {}  # of the weights after each of the last steps, once these have begun
        self.best: dict[str, Tensor] = {}  # the weights of the best look, where the recipe asks for them
        self._recipe = recipe
        self._steps = steps
        self._average_from = steps - round(steps * recipe.average)
        scales = rate_scales(parameters, recipe.layer_decay)
        groups = [
            {"params": [parameters[name] for name in parameters if scales[name] == scale], "scale": scale}
            for scale in sorted(set(scales.values()))
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )

    @property
    def done(self) -> int:
        return len(self.losses)

    @property
    def seconds(self) -> float:
        """How long it has been at work, with what it did before it was stopped."""
        return time.monotonic() - self.began

    @property
    def has_learnt(self) -> bool:
        """Whether there was a gradient in any step."""
        return any(bool(state["exp_avg_sq"].any()) for state in self.optimizer.state.values())

    def advance(self, loss: float) -> None:
        """One step of AdamW along the gradients that are there; they are gone afterwards."""
        recipe = self._recipe
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), recipe.max_grad_norm)
        factor = rate_factor(self.done, self._steps, warmup=recipe.warmup, schedule=recipe.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor * group["scale"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss)
        self._average()

    def result(self) -> dict[str, Tensor]:
        """What the tuning returns if it ends now: copies of the weights, or their mean once that has begun.

        A pooler that the chain does not use gets no gradient and no step; it is no part of the tuning.
        """
        return {name: value.clone() for name, value in self.mean.items()} or copy_parameters(self._used())

    def is_due(self) -> bool:
        """Whether the weights should be looked at before the next step."""
        every = self._recipe.eval_every
        if every == 0 or self.done == 0 or (self.looks and self.looks[-1].step == self.done):
            return False
        # Where the best look is the result, the last weights must be one of them.
        return self.done % every == 0 or (self.done == self._steps and self._recipe.ends_early)

    def look(self, watch: Watch, start: Mapping[str, Tensor]) -> None:
        """Lets `watch` measure what the tuning would return now, and goes on from the weights as they are."""
        now, shown = copy_parameters(self.parameters), self.result()
        try:
            load_parameters(self.parameters, shown)
            self.looks.append(watch(self.done, {name: start[name] for name in shown}, shown))
        finally:
            load_parameters(self.parameters, now)
        if self._recipe.ends_early and self.looks[-1] is best_look(self.looks, drift_budget=self._recipe.drift_budget):
            self.best = shown

    def _average(self) -> None:
        count = self.done - self._average_from
        if count == 1:
            self.mean = copy_parameters(self._used())
        elif count > 1:
            for name, parameter in self._used().items():
                self.mean[name].lerp_(parameter.detach(), 1 / count)

    def _used(self) -> dict[str, Parameter]:
        return {name: parameter for name, parameter in self.parameters.items() if parameter in self.optimizer.state}
