"""Where a tuning stands, on disk, so that a killed one goes on and ends with the weights of an unbroken one.

One safetensors file per checkpoint: the tuned parameters and AdamW's two moments of each (fp32), the loss of every
step so far, and the mined negatives. Everything else follows from the recipe, the training set and the parent.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from app.errors import TuningFailed

EVERY_S = 30.0
LEAST_WORK_PER_WRITE = 20  # at most a twentieth of the time goes into writing, however large the encoder
KEPT = 2  # should the newest be unreadable, the one before it is taken
FORMAT = "1"
VALUE = "parameter/"
MOMENTS = ("exp_avg", "exp_avg_sq")


def ignore(sentence: str) -> None:
    """For callers who do not listen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    tensors: dict[str, Tensor]  # "parameter/NAME", "exp_avg/NAME", "exp_avg_sq/NAME"
    negatives: NDArray[np.int64]  # (queries, depth)
    losses: tuple[float, ...]  # one per step done

    def restore(self, parameters: Mapping[str, Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Put parameters and optimizer into the state they had. Raises `TuningFailed` for another model's."""
        for name in (key.removeprefix(VALUE) for key in self.tensors if key.startswith(VALUE)):
            if name not in parameters:
                raise TuningFailed(
                    f"The checkpoint holds {name}, which this model has not: it was made with other versions of the "
                    "libraries. Start another job with the same body."
                )
            parameter = parameters[name]
            with torch.no_grad():
                parameter.copy_(self.tensors[VALUE + name])
            moments = {key: self.tensors[f"{key}/{name}"].to(parameter.device) for key in MOMENTS}
            step = torch.tensor(float(len(self.losses)), device=parameter.device)
            optimizer.state[parameter] = {"step": step, **moments}


class Checkpoints:
    """The checkpoints of one run in `folder`, which nobody else writes. `say` hears what people should know."""

    def __init__(self, folder: Path, *, every_s: float = EVERY_S, say: Callable[[str], None] = ignore) -> None:
        self._folder = folder
        self._every_s = every_s
        self._say = say
        self._next_at = time.monotonic() + every_s

    def due(self) -> bool:
        return time.monotonic() >= self._next_at

    def newest(self) -> Checkpoint | None:
        """The newest one that can be read, or None."""
        for path in reversed(self._paths()):
            try:
                found = _read(path)
            except (SafetensorError, OSError, KeyError) as error:
                self._say(f"the checkpoint {path.name} cannot be read ({error}); an older one is looked for")
                continue
            self._say(f"going on from the checkpoint after step {len(found.losses)}")
            return found
        return None

    def write(
        self,
        parameters: Mapping[str, Parameter],
        optimizer: torch.optim.Optimizer,
        negatives: NDArray[np.int64],
        losses: list[float],
    ) -> None:
        """Durable and whole, or not there: a full disk costs the checkpoint, not the tuning."""
        began = time.monotonic()
        target = self._folder / f"step-{len(losses):09d}.safetensors"
        try:
            if not target.exists():
                self._place(target, _tensors(parameters, optimizer, negatives, losses))
        except (OSError, SafetensorError) as error:
            self._say(f"no checkpoint could be written ({error}); the tuning goes on without")
        took_s = time.monotonic() - began
        self._next_at = time.monotonic() + max(self._every_s, LEAST_WORK_PER_WRITE * took_s)

    def _place(self, target: Path, tensors: dict[str, Tensor]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file(tensors, draft, metadata={"format": FORMAT})
            _sync(draft)
            draft.rename(target)
            _sync(self._folder)
        finally:
            draft.unlink(missing_ok=True)
        for old in self._paths()[:-KEPT]:
            with suppress(OSError):
                old.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.safetensors"))


def _tensors(
    parameters: Mapping[str, Parameter],
    optimizer: torch.optim.Optimizer,
    negatives: NDArray[np.int64],
    losses: list[float],
) -> dict[str, Tensor]:
    tensors = {"losses": torch.tensor(losses, dtype=torch.float64), "negatives": torch.from_numpy(negatives.copy())}
    for name, parameter in parameters.items():  # one that got no gradient has no state and did not move
        if state := optimizer.state.get(parameter):
            tensors[VALUE + name] = parameter.detach().contiguous()
            tensors |= {f"{key}/{name}": state[key].contiguous() for key in MOMENTS}
    return tensors


def _read(path: Path) -> Checkpoint:
    with safe_open(path, "pt") as file:
        if (found := (file.metadata() or {}).get("format")) != FORMAT:
            raise KeyError(f"format {found} instead of {FORMAT}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    losses, negatives = tensors.pop("losses"), tensors.pop("negatives")
    return Checkpoint(tensors=tensors, negatives=negatives.numpy(), losses=tuple(losses.tolist()))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
