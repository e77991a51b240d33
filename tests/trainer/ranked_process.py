"""One of several processes that tune together: `ranked_process.py ENCODER MATRIX DATASET OUT`.

Its environment is a launcher's. The first one tunes by every recipe in turn and writes each result to OUT; the others
help, and write what they had in the end.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from app.errors import AdiabatError
from app.recipe import FixedRecipe
from trainer import assist
from trainer.checkpoints import Checkpoints
from trainer.parameters import copy_parameters
from trainer.progress import Progress
from trainer.ranks import Ranks, join
from trainer.stopping import Stopped
from trainer.training_set import read_training_set
from trainer.tune import tune

QUICK = FixedRecipe(epochs=2, batch_size=16, learning_rate=1e-3)
GENTLE = {"false_negative_margin": 0.05, "drift_penalty": 0.5, "average": 0.5, "layer_decay": 0.5}
RECIPES: dict[str, tuple[FixedRecipe, int | None]] = {
    "infonce": (QUICK, None),
    "triplet": (QUICK.model_copy(update={"loss": "triplet", "accumulate": 3}), None),
    "gentle": (QUICK.model_copy(update=GENTLE), None),
    # The last batch has one query: a process is left without.
    "few": (QUICK.model_copy(update={"batch_size": 2, "mined_negatives": 2, "epochs": 1}), 33),
    "last": (QUICK, None),
}
STOPPED_AFTER = 4


def first(ranks: Ranks, encoder: Path, matrix: Path, dataset: Path, out: Path) -> None:
    training = read_training_set(matrix, dataset)
    folders = {"encoder": encoder, "training_set": matrix, "dataset": dataset, "prompt": ""}

    def run(recipe: FixedRecipe, pairs: int | None, name: str, *, stop_after: int = 0, broken: bool = False) -> None:
        steps: list[int] = []
        model = SentenceTransformer(str(encoder), device="cpu")
        if broken:
            model.get_parameter("0.model.encoder.layer.1.output.dense.bias").data.fill_(float("nan"))
        with ranks.tuning(recipe, pairs, **folders) as helped:
            result = tune(
                model,
                training if pairs is None else training.sample(pairs, seed=recipe.seed),
                recipe,
                on_step=lambda step, *_: steps.append(step),
                should_stop=lambda: 0 < stop_after == len(steps),
                checkpoints=Checkpoints(out / f"{name}-checkpoints", every_s=60),
                ranks=helped,
            )
        save_file(result.tuned, out / f"{name}.safetensors")
        (out / f"{name}.json").write_text(json.dumps(result.losses))

    for name, (recipe, pairs) in RECIPES.items():
        run(recipe, pairs, name)
    failures = []
    for recipe, how in (
        (QUICK.model_copy(update={"temperature": 0.0}), {}),  # which the others, who read it from JSON, refuse
        (QUICK.model_copy(update={"freeze": ("nothing",)}), {}),
        (QUICK, {"broken": True}),
        (QUICK, {"stop_after": STOPPED_AFTER}),
    ):
        try:
            run(recipe, None, "resumed", **how)
        except (AdiabatError, Stopped) as error:
            failures.append(f"{type(error).__name__}: {error}")
    (out / "failures.json").write_text(json.dumps(failures))
    run(QUICK, None, "resumed")
    ranks.leave()


def other(ranks: Ranks, out: Path) -> None:
    runs: list[Progress] = []

    class Kept(Progress):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            runs.append(self)

    assist.Progress = Kept  # type: ignore[misc]
    assist.assist(ranks)
    save_file(copy_parameters(runs[-1].parameters), out / "other.safetensors")


def main(encoder: str, matrix: str, dataset: str, out: str) -> None:
    torch.set_num_threads(1)
    ranks = join()
    if ranks.rank:
        other(ranks, Path(out))
    else:
        first(ranks, Path(encoder), Path(matrix), Path(dataset), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
