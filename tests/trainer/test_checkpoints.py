"""A tuning that was killed, stopped, or whose disk was full goes on and ends with the weights of an unbroken one."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from app.errors import TuningFailed
from app.recipe import Recipe
from tests.tiny import build_tiny
from tests.trainer import tuning_process
from trainer.checkpoints import Checkpoints
from trainer.stopping import Stopped
from trainer.training_set import TrainingSet
from trainer.tune import TuneResult, tune
from trainer.watch import Look

RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=1e-3)


class Listener:
    """Checkpoints after every step, with what they said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.checkpoints = Checkpoints(folder, every_s=0, say=self.said.append)


def run(encoder: Path, training: TrainingSet, recipe: Recipe = RECIPE, **options: object) -> TuneResult:
    return tune(SentenceTransformer(str(encoder), device="cpu"), training, recipe, **options)  # type: ignore[arg-type]


def stop_after(
    encoder: Path, training: TrainingSet, checkpoints: Checkpoints, step: int, recipe: Recipe, **options: object
) -> None:
    heard: list[int] = []
    with pytest.raises(Stopped):
        run(
            encoder,
            training,
            recipe,
            on_step=lambda step, *_: heard.append(step),
            should_stop=lambda: len(heard) == step,
            checkpoints=checkpoints,
            **options,
        )


def same(first: TuneResult, second: TuneResult) -> bool:
    return (
        first.losses == second.losses
        and first.tuned.keys() == second.tuned.keys()
        and all(torch.equal(first.tuned[name], second.tuned[name]) for name in first.tuned)
        and all(torch.equal(first.start[name], second.start[name]) for name in first.start)
    )


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        RECIPE.model_copy(update={"loss": "triplet", "weight_decay": 0.1}),
        RECIPE.model_copy(update={"average": 0.5, "layer_decay": 0.5}),
        RECIPE.model_copy(update={"drift_penalty": 0.5, "false_negative_margin": 0.05, "mined_negatives": 0}),
        RECIPE.model_copy(update={"false_negative_margin": -0.05, "accumulate": 3}),
    ],
)
def test_a_stopped_tuning_goes_on_bit_equal_to_an_unbroken_one(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path, recipe: Recipe
) -> None:
    unbroken = run(tiny_folder, training, recipe)
    stop_after(tiny_folder, training, Checkpoints(tmp_path), 7, recipe)
    listener = Listener(tmp_path)
    resumed = run(tiny_folder, training, recipe, checkpoints=listener.checkpoints)
    assert "going on from the checkpoint after step 7" in listener.said
    assert same(resumed, unbroken)
    assert len(resumed.losses) == 10


def test_a_tuning_killed_with_kill_9_goes_on_bit_equal_to_an_unbroken_one(
    tiny_folder: Path, training: TrainingSet, world: Path, tmp_path: Path
) -> None:
    (matrix,) = (world / "matrices").iterdir()

    def start() -> "subprocess.Popen[str]":
        places = (tiny_folder, matrix, world / "dataset", tmp_path / "checkpoints", tmp_path / "tuned.safetensors")
        command = [sys.executable, "-m", tuning_process.__name__, *map(str, places)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start() as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) > 10 and any((tmp_path / "checkpoints").glob("step-*.safetensors")):
                child.kill()
                break
    assert not (tmp_path / "tuned.safetensors").exists()
    with start() as child:
        said, _ = child.communicate()
    assert said.startswith("going on from the checkpoint after step ")
    assert 1 < int(said.splitlines()[1]) < int(said.splitlines()[-1]) == 60  # it did not start over
    unbroken = run(tiny_folder, training, tuning_process.RECIPE).tuned
    resumed = load_file(tmp_path / "tuned.safetensors")
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_a_tuning_that_was_done_is_taken_up_without_a_step(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    done = run(tiny_folder, training, checkpoints=Checkpoints(tmp_path))
    steps: list[int] = []
    again = run(tiny_folder, training, on_step=lambda step, *_: steps.append(step), checkpoints=Checkpoints(tmp_path))
    assert steps == []
    assert same(again, done)


def test_the_last_two_are_kept_and_a_damaged_one_gives_way_to_the_one_before(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    unbroken = run(tiny_folder, training)
    stop_after(tiny_folder, training, Listener(tmp_path).checkpoints, 6, RECIPE)
    older, newest = sorted(path.name for path in tmp_path.iterdir())
    assert newest == "step-000000006.safetensors"
    content = (tmp_path / newest).read_bytes()
    (tmp_path / newest).write_bytes(content[: len(content) // 2])
    listener = Listener(tmp_path)
    resumed = run(tiny_folder, training, checkpoints=listener.checkpoints)
    assert f"the checkpoint {newest} cannot be read" in listener.said[0]
    assert listener.said[1] == f"going on from the checkpoint after step {int(older[5:14])}"
    assert same(resumed, unbroken)


def test_without_mined_negatives_there_is_nothing_to_mine_again(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"mined_negatives": 0})
    stop_after(tiny_folder, training, Checkpoints(tmp_path), 4, recipe)
    resumed = run(tiny_folder, training, recipe, checkpoints=Checkpoints(tmp_path))
    assert same(resumed, run(tiny_folder, training, recipe))


def test_a_checkpoint_of_another_architecture_is_refused(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    deeper = build_tiny(tmp_path / "deeper", layers=3)
    stop_after(deeper, training, Checkpoints(tmp_path / "c"), 1, RECIPE)
    with pytest.raises(TuningFailed, match="which this model has not"):
        run(tiny_folder, training, checkpoints=Checkpoints(tmp_path / "c"))


def test_what_cannot_be_written_costs_the_checkpoint_and_not_the_tuning(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    listener = Listener(tmp_path / "file" / "checkpoints")
    result = run(tiny_folder, training, checkpoints=listener.checkpoints)
    assert len(result.losses) == 10
    assert "no checkpoint could be written" in listener.said[0]
    assert f"Errno {errno.ENOTDIR}" in listener.said[0]


class Watcher:
    """Looks that find what they find after each step; may be asked to stop in the midst of one."""

    def __init__(self, dev: dict[int, float], *, stop_at: int = 0) -> None:
        self.dev, self.stop_at = dev, stop_at
        self.steps: list[int] = []

    def __call__(self, step: int, *_: object) -> Look:
        self.steps.append(step)
        if step == self.stop_at:
            raise Stopped
        return Look(step=step, dev=self.dev[step], drift=0.001 * step)


DEV = {2: 0.5, 4: 0.7, 6: 0.6, 8: 0.65, 10: 0.9}
ENDING = RECIPE.model_copy(update={"eval_every": 2, "patience": 2, "average": 0.7})


def test_what_was_looked_at_and_the_best_weights_survive_a_stop(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    unbroken = run(tiny_folder, training, ENDING, watch=Watcher(DEV))
    assert (len(unbroken.losses), unbroken.ended is None) == (8, False)
    for step in (4, 5, 7):  # before the look after that step, and after it
        folder = tmp_path / str(step)
        stop_after(tiny_folder, training, Checkpoints(folder), step, ENDING, watch=Watcher(DEV))
        again = Watcher(DEV)
        resumed = run(tiny_folder, training, ENDING, checkpoints=Checkpoints(folder), watch=again)
        assert same(resumed, unbroken)
        assert resumed.looks == unbroken.looks
        assert resumed.ended == unbroken.ended
        assert again.steps == [each for each in (2, 4, 6, 8) if each > step]


def test_a_stop_in_the_midst_of_a_look_costs_that_look_alone(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(tiny_folder, training, ENDING, checkpoints=Checkpoints(tmp_path), watch=Watcher(DEV, stop_at=6))
    again = Watcher(DEV)
    resumed = run(tiny_folder, training, ENDING, checkpoints=Checkpoints(tmp_path), watch=again)
    assert same(resumed, run(tiny_folder, training, ENDING, watch=Watcher(DEV)))
    assert again.steps == [6, 8]


def test_a_tuning_that_ended_early_is_taken_up_without_a_step_or_a_look(
    tiny_folder: Path, training: TrainingSet, tmp_path: Path
) -> None:
    done = run(tiny_folder, training, ENDING, checkpoints=Checkpoints(tmp_path), watch=Watcher(DEV))
    again = Watcher(DEV)
    steps: list[int] = []
    resumed = run(
        tiny_folder,
        training,
        ENDING,
        checkpoints=Checkpoints(tmp_path),
        watch=again,
        on_step=lambda step, *_: steps.append(step),
    )
    assert same(resumed, done)
    assert (steps, again.steps) == ([], [])
