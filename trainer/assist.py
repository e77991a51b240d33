"""What every process but the first does: its share of each step, as the first one tells. Claims and keeps nothing."""

import logging
from pathlib import Path

from sentence_transformers import SentenceTransformer

from app.errors import TuningFailed
from app.recipe import FixedRecipe
from trainer.checkpoints import Checkpoint
from trainer.lessons import Lessons
from trainer.parameters import choose_parameters
from trainer.progress import Progress
from trainer.ranks import GivenUp, Ranks, Said, Word
from trainer.training_set import TrainingSet, read_training_set

log = logging.getLogger("adiabat.trainer")


class _Opened:
    """The encoder and training set of a job, whose tunings are many."""

    def __init__(self, said: Said) -> None:
        self.folders = _folders(said)
        encoder, training_set, dataset = self.folders
        self.model = SentenceTransformer(encoder, local_files_only=True)
        self.training = read_training_set(Path(training_set), Path(dataset))


class _Run:
    """One tuning, from where the first process stands."""

    def __init__(self, opened: _Opened, said: Said, state: Checkpoint, ranks: Ranks) -> None:
        recipe, model = FixedRecipe(**said["recipe"]), opened.model
        training: TrainingSet = opened.training
        if said["pairs"] is not None:
            training = training.sample(said["pairs"], seed=recipe.seed)
        model.float()
        model.zero_grad(set_to_none=True)
        parameters = choose_parameters(model, recipe.freeze)
        self._lessons = Lessons(model, training, recipe, state.parent, said["prompt"], ranks)
        self._progress = Progress(parameters, state.parent, recipe, self._lessons.steps)
        state.restore(self._progress)
        model.eval()

    def step(self) -> None:
        self._progress.advance(self._lessons.backward(self._progress.done))


def assist(ranks: Ranks) -> None:
    """Until the first process says that it leaves. Raises `RanksLost` where it is gone without a word."""
    opened: _Opened | None = None
    while True:
        word, said = ranks.hear()
        if word is Word.LEAVE:
            return
        if word is Word.REST:
            opened = None
        if word is Word.TUNE:
            opened = _tune(ranks, said, opened)


def _tune(ranks: Ranks, said: Said, opened: _Opened | None) -> _Opened | None:
    """One tuning, to its end; what was opened for it, for the next one."""
    run: _Run | None = None
    if opened and opened.folders != _folders(said):
        opened = None
    while True:
        word, more = ranks.hear()
        if word is Word.END:
            return opened
        try:
            if word is Word.STATE:
                state = Checkpoint.of(ranks.take(more["tensors"]))
                with ranks.agreed():
                    opened = opened or _Opened(said)
                    run = _Run(opened, said, state, ranks)
            elif word is Word.STEP and run:
                run.step()
        except (GivenUp, TuningFailed):  # all of them know
            run = None


def _folders(said: Said) -> tuple[str, str, str]:
    return said["encoder"], said["training_set"], said["dataset"]
