"""Search a library of functions by what they do, where no function says so. README.md tells the story.

python examples/code_search/run.py [--url http://127.0.0.1:8000]
"""

import argparse
import ast
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.client import DEFAULT_URL, AdiabatClient, ApiError, Unreachable

HERE = Path(__file__).parent
NAME = "code"  # of the dataset, and of the encoder
GUARD = f"{NAME}:names"  # who knows a function's name must still find it
RECIPE = {"epochs": 8}  # 168 pairs are three steps an epoch
GATE = {"max_guard_loss": 0.05, "alpha": 0.1}
MODES = ("dense", "lexical", "hybrid")
SHOWN = 6
TOP = 10


def main(client: AdiabatClient) -> None:
    questions = [json.loads(line) for line in (HERE / "questions.jsonl").read_text().splitlines()]
    test = [each for each in questions if each["split"] == "test"]
    names = [each for each in questions if each["split"] == "names"]
    shown = test[:: len(test) // SHOWN][:SHOWN]

    step(1, "Each function is a passage: its name the title, its source the text")
    stored = client.upsert_passages(functions(HERE / "library.py"))
    print(f"{stored.embedded} embedded, {stored.unchanged} were there already")

    step(2, "Ask for what a function does: the rank of the right one, and what comes first")
    ask(client, shown)

    step(3, "By vectors, by words, by both: MRR@10 of the three modes")
    compare_modes(client, test, names, "base")

    step(4, "Tune a query encoder; functions that dev and test ask for are not among those it is tuned on")
    print(f"trainer: {client.ready().trainer}")
    client.put_dataset(NAME, HERE / "questions.jsonl")
    job = client.create_tuning_job(NAME, NAME, guards=[GUARD], recipe=RECIPE, gate=GATE)
    job = client.wait_for_job(job.id, progress=sys.stderr.isatty())
    if job.result is None or job.encoder is None:
        sys.exit(f"The tuning job ended as {job.status}: {job.reason}")
    tuned = f"{job.encoder.name}@{job.encoder.version}"
    for sentence in job.result["gate"]["reasons"]:
        print(f"  {sentence}")

    step(5, f"The three modes again, with {tuned} named in each search; words alone need no encoder")
    compare_modes(client, test, names, tuned)

    if job.status != "succeeded":
        print("\nThe gate said no, so nothing was switched; its sentences say which rule, and what would mend it.")
        return

    step(6, f"Switch to {tuned}, and ask the same again")
    switched = client.activate(tuned)
    print(f"generation {switched.encoder.generation}; what answered before stays in memory")
    ask(client, shown)

    step(7, "The way back")
    back = client.rollback().encoder
    print(f"{back.name}@{back.version} answers again, as generation {back.generation}")
    print(f"To stay with the tuned one: adiabat encoders activate {tuned}")


def functions(module: Path) -> Iterator[dict[str, Any]]:
    """The module's functions and classes, without what stands around them."""
    source = module.read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            text = ast.get_source_segment(source, node)
            yield {"id": node.name, "title": node.name, "text": text, "metadata": {"file": module.name}}


def compare_modes(client: AdiabatClient, test: list[dict[str, Any]], names: list[dict[str, Any]], encoder: str) -> None:
    print(f"  {'':<10}{'what it does':>14}{'its name':>10}")
    for mode in MODES:
        if mode == "lexical" and encoder != "base":
            continue
        said = {} if mode == "lexical" else {"encoder": encoder}
        found = [mean_reciprocal_rank(client, part, mode=mode, **said) for part in (test, names)]
        print(f"  {mode:<10}{found[0]:>14.3f}{found[1]:>10.3f}")


def mean_reciprocal_rank(client: AdiabatClient, questions: list[dict[str, Any]], **how: Any) -> float:
    results = client.search_batch([each["query"] for each in questions], limit=TOP, **how).results
    ranks = [rank(each, result.hits) for each, result in zip(questions, results, strict=True)]
    return sum(1 / found for found in ranks if found) / len(ranks)


def rank(question: dict[str, Any], hits: list[Any]) -> int | None:
    return next((place for place, hit in enumerate(hits, 1) if hit.id in question["relevant"]), None)


def ask(client: AdiabatClient, questions: list[dict[str, Any]]) -> None:
    for question in questions:
        hits = client.search(question["query"], limit=TOP).hits
        print(f"  {rank(question, hits) or '>10':>3}  {question['query']}  ->  {hits[0].title}")


def step(number: int, title: str) -> None:
    print(f"\n{number}. {title}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default=os.environ.get("ADIABAT_URL", DEFAULT_URL), help="of a running service")
    try:
        with AdiabatClient(parser.parse_args().url, os.environ.get("ADIABAT_API_KEY")) as client:
            main(client)
    except Unreachable as nobody:
        sys.exit(str(nobody))
    except ApiError as refused:
        sys.exit(f"{refused.detail} [{refused.slug}]")
