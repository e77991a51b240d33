"""The processes that tune together: which this is, what the first tells the others, and how gradients are summed.

`torchrun -m trainer` and `accelerate launch -m trainer` start them and leave in the environment who is who. The first
one, rank 0, is a trainer like any other: it claims, measures, keeps and publishes. The others hold nothing that lasts
(`trainer.assist`); they end when it says so, or with it. Words go over gloo, gradients over NCCL where there are GPUs.

What one process cannot do all learn at the end of the same step, so nobody waits for a sum that never comes. A
process that is gone breaks its connections, which ends everybody's waiting with `RanksLost`.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from app.errors import AdiabatError, Unavailable
from app.recipe import FixedRecipe

log = logging.getLogger("adiabat.trainer")

SILENT = timedelta(minutes=30)  # in the midst of a step, who says nothing for so long is taken for lost
BETWEEN = timedelta(days=365)  # the first one measures, or has no job, for as long as it takes
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")

Said = dict[str, Any]


class Word(IntEnum):
    """What the first process tells the others."""

    REST = 0  # there is no job: let go of the last one
    TUNE = 1  # a tuning begins; said: what, and where it lies
    STATE = 2  # where it stands; tensors follow
    STEP = 3  # do one step
    END = 4  # of this tuning, however it went
    LEAVE = 5  # end the process


class RanksLost(Unavailable):
    """Another process of this trainer is gone or silent: start all of them again."""


class GivenUp(Exception):
    """A step or a start failed somewhere; the first process says why, the others go on listening."""


class Ranks:
    """This process among `size` ones; a single one is on its own, and nothing is sent or waited for."""

    def __init__(self, rank: int = 0, size: int = 1, *, words: Any = None, gradients: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._words, self._gradients = words, gradients
        self._lost = False

    # What the first process says

    @contextmanager
    def tuning(
        self, recipe: FixedRecipe, pairs: int | None, *, encoder: Path, training_set: Path, dataset: Path, prompt: str
    ) -> Iterator["Ranks"]:
        """The others help while the block lasts. The folders are where they, too, find them."""
        folders = {"encoder": encoder, "training_set": training_set, "dataset": dataset}
        said = {name: str(folder.resolve()) for name, folder in folders.items()}
        self._tell(Word.TUNE, said | {"recipe": recipe.model_dump(mode="json"), "pairs": pairs, "prompt": prompt})
        try:
            yield self
        finally:
            self._tell(Word.END)

    def hand_out(self, state: Mapping[str, Tensor]) -> None:
        """Where the tuning stands, to all. Raises where one cannot begin."""
        listed = [(name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in state.items()]
        self._tell(Word.STATE, {"tensors": listed})
        for value in state.values():
            self._share(value.detach().cpu().contiguous())
        with self.agreed():
            pass

    def step(self) -> None:
        self._tell(Word.STEP)

    def rest(self) -> None:
        self._tell(Word.REST)

    def leave(self) -> None:
        self._tell(Word.LEAVE)

    # What the others hear

    def hear(self) -> tuple[Word, Said]:
        """The next word, and what was said with it. Waits without end."""
        head = self._share(torch.zeros(2, dtype=torch.int64)).tolist()
        return Word(head[0]), json.loads(self._share_bytes(b"", head[1], source=0) or b"{}")

    def take(self, listed: Sequence[tuple[str, str, list[int]]]) -> dict[str, Tensor]:
        """What was handed out; `listed` was said with it."""
        return {name: self._share(torch.empty(shape, dtype=getattr(torch, kind))) for name, kind, shape in listed}

    # What all of them do

    def sum(self, work: Callable[[], float], parameters: Sequence[Parameter]) -> float:
        """The sum of what `work` returns at each process. Gradients it left are summed too, and the same everywhere.

        Raises, at all of them, where one failed: at the first process what failed, at the others `GivenUp`.
        """
        if self.size == 1:
            return work()
        found, error = 0.0, None
        try:
            found = work()
        except Exception as failed:
            error = failed
        given = [float(each.grad is not None) for each in parameters]
        total = self._add(torch.tensor([found, float(error is not None), *given], dtype=torch.float64))
        if total[1]:
            self._give_up(error)
        self._sum_gradients([each for each, count in zip(parameters, total[2:].tolist(), strict=True) if count])
        return float(total[0])

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """What the block does, all do or none: raises as `sum` does."""
        error = None
        try:
            yield
        except Exception as failed:
            error = failed
        if self.size == 1:
            if error is not None:
                raise error
        elif self._add(torch.tensor([float(error is not None)], dtype=torch.float64))[0]:
            self._give_up(error)

    def _sum_gradients(self, parameters: Sequence[Parameter]) -> None:
        with self._connected():
            pending = []
            for each in parameters:
                if each.grad is None:  # a batch of fewer queries than there are processes
                    each.grad = torch.zeros_like(each)
                pending.append(dist.all_reduce(each.grad, group=self._gradients, async_op=True))
            for sending in pending:
                sending.wait()

    def _give_up(self, error: Exception | None) -> None:
        """Tell each other what failed, and raise."""
        texts = []
        for source in range(self.size):
            own = f"{type(error).__name__}: {error}".encode() if source == self.rank and error is not None else b""
            length = int(self._share(torch.tensor([len(own)]), source)[0])
            texts.append(self._share_bytes(own, length, source).decode())
        if self.rank:
            if error is not None:
                log.error("what this process was to do failed", exc_info=error)
            raise GivenUp from error
        if error is not None:
            raise error
        failed = next(number for number, text in enumerate(texts) if text)
        raise AdiabatError(f"Process {failed + 1} of {self.size} of this trainer failed: {texts[failed]}")

    def _tell(self, word: Word, said: Said | None = None) -> None:
        if self.size == 1 or self._lost:
            return
        told = json.dumps(said).encode() if said else b""
        self._share(torch.tensor([word, len(told)]))
        self._share_bytes(told, len(told), source=0)

    def _share_bytes(self, own: bytes, length: int, source: int) -> bytes:
        """`own` of the process `source`, at all of them."""
        if not length:
            return b""
        value = torch.frombuffer(bytearray(own or length), dtype=torch.uint8)
        return self._share(value, source).numpy().tobytes()

    def _share(self, value: Tensor, source: int = 0) -> Tensor:
        with self._connected():
            if value.numel():
                dist.broadcast(value, source, group=self._words)
        return value

    def _add(self, value: Tensor) -> Tensor:
        with self._connected():
            dist.all_reduce(value)  # in the group of those who are in the midst of something: it ends in `SILENT`
        return value

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self._lost = True
            raise RanksLost(
                f"Another of the {self.size} processes of this trainer is gone or silent "
                f"({str(error).splitlines()[0]}); start all of them again."
            ) from error


ALONE = Ranks()


def join() -> Ranks:
    """The processes that a launcher started together, once all of them are there; alone where none did."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    if missing := [name for name in NEEDED if name not in os.environ]:
        raise Unavailable(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set: start the trainer with 'torchrun' or "
            "'accelerate launch', which set them, or unset WORLD_SIZE."
        )
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("gloo", timeout=SILENT)
        words = dist.new_group(backend="gloo", timeout=BETWEEN)
        gradients = dist.new_group(backend="nccl" if gpus else "gloo", timeout=SILENT)
    except (RuntimeError, ValueError) as error:
        raise Unavailable(f"The {size} processes of this trainer did not find each other ({error}).") from error
    rank = dist.get_rank()
    log.info("process %d of the %d that tune together%s", rank + 1, size, ", on its own GPU" if gpus else "")
    return Ranks(rank, size, words=words, gradients=gradients)
