"""A tuning in a process of its own, to be killed: `tuning_process.py ENCODER MATRIX DATASET CHECKPOINTS OUT`.

Prints each step; writes what it tuned to OUT when it is done.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from app.recipe import Recipe
from trainer.checkpoints import Checkpoints
from trainer.training_set import read_training_set
from trainer.tune import tune

RECIPE = Recipe(epochs=12, batch_size=16, learning_rate=1e-3)


def main(encoder: str, matrix: str, dataset: str, checkpoints: str, out: str) -> None:
    torch.set_num_threads(1)
    result = tune(
        SentenceTransformer(encoder, device="cpu"),
        read_training_set(Path(matrix), Path(dataset)),
        RECIPE,
        on_step=lambda step, *_: print(step, flush=True),
        checkpoints=Checkpoints(Path(checkpoints), every_s=0.1, say=lambda sentence: print(sentence, flush=True)),
    )
    save_file(result.tuned, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
