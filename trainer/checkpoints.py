"""Where a tuning stands, on disk, so that a killed one goes on and ends with the weights of an unbroken one.

One safetensors file per checkpoint: the tuned parameters and AdamW's two moments of each (fp32), the loss of every
step so far, the looks and what the parent made of the queries; the mean and the best weights where the recipe asks for
them. Everything else follows from the recipe, the training set and the parent.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.errors import TuningFailed, Unavailable
from trainer.lessons import ParentView
from trainer.parameters import load_parameters
from trainer.progress import Progress
from trainer.watch import Look

EVERY_S = 30.0
LEAST_WORK_PER_WRITE = 20  # at most a twentieth of the time goes into writing, however large the encoder
KEPT = 2  # should the newest be unreadable, the one before it is taken
FORMAT = "3"
MOMENTS = ("exp_avg", "exp_avg_sq")


def ignore(sentence: str) -> None:
    """For callers who do not listen."""


def nothing() -> None:
    """For callers whose checkpoints nobody else looks for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    tensors: dict[str, Tensor]  # "parameter/NAME", "exp_avg/NAME", "exp_avg_sq/NAME", "mean/NAME", "best/NAME"
    parent: ParentView
    losses: tuple[float, ...]  # one per step done
    looks: tuple[Look, ...]
    seconds: float

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Checkpoint":
        """From what `tensors_of` gives, which is what a file holds."""
        losses, looks, negatives, seconds = (tensors.pop(name) for name in ("losses", "looks", "negatives", "seconds"))
        vectors = tensors.pop("vectors", None)
        return cls(
            tensors=tensors,
            parent=ParentView(negatives=negatives.numpy(), vectors=None if vectors is None else vectors.numpy()),
            losses=tuple(losses.tolist()),
            looks=tuple(Look(step=int(step), dev=dev, drift=drift) for step, dev, drift in looks.tolist()),
            seconds=float(seconds),
        )

    def restore(self, progress: Progress) -> None:
        """Put a fresh progress into the state it had. Raises `TuningFailed` for another model's."""
        values = self._named("parameter")
        if unknown := next((name for name in values if name not in progress.parameters), None):
            raise TuningFailed(
                f"The checkpoint holds {unknown}, which this model has not: it was made with other versions of the "
                "libraries. Start another job with the same body."
            )
        load_parameters(progress.parameters, values)
        moments = {key: self._named(key) for key in MOMENTS}
        for name in moments["exp_avg"]:
            parameter = progress.parameters[name]
            state = {key: moments[key][name].to(parameter.device) for key in MOMENTS}
            state["step"] = torch.tensor(float(len(self.losses)), device=parameter.device)
            progress.optimizer.state[parameter] = state
        device = next(iter(progress.parameters.values())).device
        progress.mean = {name: value.to(device) for name, value in self._named("mean").items()}
        progress.best = {name: value.to(device) for name, value in self._named("best").items()}
        progress.losses, progress.looks = list(self.losses), list(self.looks)
        progress.began = time.monotonic() - self.seconds

    def _named(self, kind: str) -> dict[str, Tensor]:
        prefix = f"{kind}/"
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


class Checkpoints:
    """The checkpoints of one run in `folder`, which nobody else writes. `say` hears what people should know.

    `share` is called after each one: it brings them to where trainers on other hosts find them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_s: float = EVERY_S,
        say: Callable[[str], None] = ignore,
        share: Callable[[], None] = nothing,
    ) -> None:
        self._folder = folder
        self._every_s = every_s
        self._say = say
        self._share = share
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

    def write(self, progress: Progress) -> None:
        """Durable and whole, or not there: a full disk costs the checkpoint, not the tuning."""
        began = time.monotonic()
        target = self._folder / f"step-{progress.done:09d}.safetensors"
        try:
            if not target.exists():
                self._place(target, tensors_of(progress))
            self._share()
        except (OSError, SafetensorError) as error:
            self._say(f"no checkpoint could be written ({error}); the tuning goes on without")
        except Unavailable as error:
            self._say(f"the checkpoint is on this host alone ({error.detail})")
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


def tensors_of(progress: Progress, *, unmoved: bool = False) -> dict[str, Tensor]:
    """All of it, as a checkpoint has it; with `unmoved` also the parameters that no step has moved yet."""
    tensors = {
        "losses": torch.tensor(progress.losses, dtype=torch.float64),
        "looks": torch.tensor([astuple(look) for look in progress.looks], dtype=torch.float64).reshape(-1, 3),
        "negatives": torch.from_numpy(progress.parent.negatives.copy()),
        "seconds": torch.tensor(progress.seconds, dtype=torch.float64),
    }
    if progress.parent.vectors is not None:
        tensors["vectors"] = torch.from_numpy(progress.parent.vectors)
    for name, parameter in progress.parameters.items():  # one that got no gradient has no state and did not move
        state = progress.optimizer.state.get(parameter)
        if state or unmoved:
            tensors[f"parameter/{name}"] = parameter.detach().contiguous()
        if state:
            tensors |= {f"{key}/{name}": state[key].contiguous() for key in MOMENTS}
    tensors |= {f"mean/{name}": value.contiguous() for name, value in progress.mean.items()}
    return tensors | {f"best/{name}": value.contiguous() for name, value in progress.best.items()}


def _read(path: Path) -> Checkpoint:
    with safe_open(path, "pt") as file:
        if (found := (file.metadata() or {}).get("format")) != FORMAT:
            raise KeyError(f"format {found} instead of {FORMAT}")
        return Checkpoint.of({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # it is no mapping


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
