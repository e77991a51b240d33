"""Two processes that tune together do what one does: the same batches, losses and weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from app.errors import Unavailable
from tests.trainer import ranked_process
from trainer.ranks import join
from trainer.training_set import TrainingSet
from trainer.tune import TuneResult, tune

# Sums in another order. The bias of an attention's keys moves no score: its gradient is nothing but rounding, which
# AdamW makes as large as any other, so it is left out.
TOLERANCE = 1e-5
WITHOUT_EFFECT = "key.bias"


def launch(size: int, *arguments: Path) -> list["subprocess.Popen[str]"]:
    """As `torchrun` does it, in a second less."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", ranked_process.__name__, *map(str, arguments)]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    return [
        subprocess.Popen(command, env=os.environ | where | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]


@pytest.fixture(scope="module")
def together(tiny_folder: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    out = tmp_path_factory.mktemp("together")
    (matrix,) = (world / "matrices").iterdir()
    processes = launch(2, tiny_folder, matrix, world / "dataset", out)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return out


def alone(encoder: Path, training: TrainingSet, name: str, accumulate: int | None = None) -> TuneResult:
    recipe, pairs = ranked_process.RECIPES[name]
    if accumulate:
        recipe = recipe.model_copy(update={"accumulate": accumulate})
    if pairs:
        training = training.sample(pairs, seed=recipe.seed)
    return tune(SentenceTransformer(str(encoder), device="cpu"), training, recipe)


@pytest.mark.parametrize("name", ranked_process.RECIPES)
def test_two_processes_tune_as_one_does(tiny_folder: Path, training: TrainingSet, together: Path, name: str) -> None:
    one = alone(tiny_folder, training, name)
    losses = json.loads((together / f"{name}.json").read_text())
    assert losses == pytest.approx(one.losses, abs=TOLERANCE)
    assert len(losses) == {"few": 17}.get(name, 10)
    two = load_file(together / f"{name}.safetensors")
    assert two.keys() == one.tuned.keys()
    compared = [each for each in two if not each.endswith(WITHOUT_EFFECT)]
    assert max(float((two[each] - one.tuned[each]).abs().max()) for each in compared) < TOLERANCE


def test_two_processes_are_to_the_bit_one_with_two_parts(
    tiny_folder: Path, training: TrainingSet, together: Path
) -> None:
    one = alone(tiny_folder, training, "infonce", accumulate=2)
    assert json.loads((together / "infonce.json").read_text()) == list(one.losses)
    two = load_file(together / "infonce.safetensors")
    assert all(torch.equal(two[each], one.tuned[each]) for each in two)


def test_all_processes_hold_the_same_weights(together: Path) -> None:
    first, other = load_file(together / "resumed.safetensors"), load_file(together / "other.safetensors")
    assert all(torch.equal(first[each], other[each]) for each in first)


def test_what_failed_or_was_stopped_is_told_and_the_next_tuning_starts_clean(together: Path) -> None:
    failures = json.loads((together / "failures.json").read_text())
    assert [failure.split(":")[0] for failure in failures] == [
        "AdiabatError",
        "InvalidField",
        "TuningFailed",
        "Stopped",
    ]
    assert "Process 2 of 2 of this trainer failed: ValidationError" in failures[0]
    assert "The loss became nan at step 1" in failures[2]
    resumed, unbroken = (load_file(together / f"{name}.safetensors") for name in ("resumed", "last"))
    assert all(torch.equal(resumed[each], unbroken[each]) for each in resumed)
    assert list((together / "resumed-checkpoints").glob("*.safetensors"))


def test_a_process_that_is_to_be_one_of_several_and_is_told_no_more_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(Unavailable, match="MASTER_ADDR, MASTER_PORT is not set"):
        join()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join().size == 1
