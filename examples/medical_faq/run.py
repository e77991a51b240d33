"""A clinic's pages, and patients who do not know the clinic's words. README.md tells the story.

python examples/medical_faq/run.py [--url http://127.0.0.1:8000]
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from app.client import DEFAULT_URL, AdiabatClient, ApiError, Unreachable

HERE = Path(__file__).parent
NAME = "medical"  # of the dataset, and of the encoder
GUARD = f"{NAME}:practice"  # what the front desk is asked must still be found
RECIPE = {"epochs": 12}  # 106 pairs are two steps an epoch
GATE = {"max_guard_loss": 0.05, "alpha": 0.1}  # 90% confidence: a hundred questions prove no more
SHOWN = 6


def main(client: AdiabatClient) -> None:
    passages, questions = lines("passages.jsonl"), lines("questions.jsonl")
    asked = [each for each in questions if each["split"] == "test"]
    asked = asked[:: len(asked) // SHOWN][:SHOWN]

    step(1, "Put the pages in; each is embedded once, now, and never again")
    stored = client.upsert_passages(passages)
    print(f"{stored.embedded} embedded, {stored.unchanged} were there already")

    step(2, "Ask as patients do: the rank of the right page, and the page that comes first")
    ask(client, asked)

    step(3, "Tune a query encoder on questions whose page somebody has named; the service goes on answering")
    print(f"trainer: {client.ready().trainer}")
    client.put_dataset(NAME, HERE / "questions.jsonl")
    job = client.create_tuning_job(NAME, NAME, guards=[GUARD], recipe=RECIPE, gate=GATE)
    job = client.wait_for_job(job.id, progress=sys.stderr.isatty())
    if job.result is None or job.encoder is None:
        sys.exit(f"The tuning job ended as {job.status}: {job.reason}")
    tuned = f"{job.encoder.name}@{job.encoder.version}"

    step(4, f"What the gate says of {tuned}, from questions that nothing was chosen by")
    for sentence in job.result["gate"]["reasons"]:
        print(f"  {sentence}")

    step(5, "The same on questions that the job never saw")
    measured = client.wait_for_evaluation(client.create_evaluation([f"{NAME}:test", GUARD], [tuned]).id)
    if measured.result is None:
        sys.exit(f"The evaluation ended as {measured.status}: {measured.reason}")
    matrix = measured.result.matrix
    for name, cell in matrix[tuned].items():
        base, change = matrix["base@1"][name], cell.difference
        said = f"{change.change:+.3f}, 95% interval {change.low:+.3f} to {change.high:+.3f}" if change else ""
        print(f"  {name:<18}{cell.queries:>4} questions  MRR@10 {base.mrr:.3f} -> {cell.mrr:.3f}  ({said})")

    if job.status != "succeeded":
        print("\nThe gate said no, so nothing was switched; its sentences say which rule, and what would mend it.")
        print(f"What it would answer: adiabat search '{asked[0]['query']}' --encoder {tuned} --compare-to base")
        return

    step(6, f"Switch to {tuned}, and ask the same again")
    switched = client.activate(tuned)
    print(f"the switch took {switched.swap.switch_us:.1f} µs; generation {switched.encoder.generation}")
    ask(client, asked)

    step(7, "The way back")
    back = client.rollback().encoder
    print(f"{back.name}@{back.version} answers again, as generation {back.generation}")
    print(f"To stay with the tuned one: adiabat encoders activate {tuned}")


def ask(client: AdiabatClient, questions: list[dict[str, Any]]) -> None:
    for question in questions:
        hits = client.search(question["query"]).hits
        rank = next((str(rank) for rank, hit in enumerate(hits, 1) if hit.id in question["relevant"]), ">10")
        print(f"  {rank:>3}  {question['query']}  ->  {hits[0].title}")


def step(number: int, title: str) -> None:
    print(f"\n{number}. {title}")


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


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
