"""What the query log and a canary add to a search:

    python bench/query_log.py [--rounds 200] [--json FILE]

Three services on `samples/`: one with neither, one that logs every search, one that logs every search and gives a tenth
of them to a canary. One client asks them in turns over connections that stay open, 25 questions to a turn, the query
cache off; so whatever else the machine does falls on all three. Told: the p50 of each, and the ratio to the first with
a 95% interval (bootstrap over the rounds, of the medians' ratio).

Asked: under 3% of the p50, for both together. Exits with 1 where it is not met.
"""

import argparse
import http.client
import json
import os
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from residency import register, service
from road import read_judged

from app.beir import read_jsonl

ROOT = Path(__file__).resolve().parents[1]
ROOM = 2**30
TURN = 25  # questions
ASKED = 1.03
USER = "X-User"
VARIANTS = {"neither": ("0", False), "query log": ("1", False), "query log and canary": ("1", True)}
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    questions = [query for query, _ in read_judged(ROOT / "samples", "dev")]
    with ExitStack() as stack:
        connections = {name: started(stack, *how) for name, how in VARIANTS.items()}
        took = {name: np.zeros((given.rounds, TURN)) for name in VARIANTS}
        for turn in range(-5, given.rounds):
            for name in random.sample(list(VARIANTS), len(VARIANTS)):
                for place in range(TURN):
                    each = asked(connections[name], questions[(turn * TURN + place) % len(questions)])
                    if turn >= 0:  # the first ones warm up
                        took[name][turn, place] = each
    plain = took["neither"]
    rows = {name: {"p50_ms": round(float(np.median(each)), 3), **ratio(each, plain)} for name, each in took.items()}
    for name, row in rows.items():
        print(f"{name:<24}p50 {row['p50_ms']:.2f} ms   {row['times']:.3f} of it [{row['low']:.3f}, {row['high']:.3f}]")
    if given.json:
        given.json.write_text(json.dumps({"rounds": given.rounds, **rows}, indent=1) + "\n")
    if rows["query log and canary"]["times"] >= ASKED:
        sys.exit(1)


def started(stack: ExitStack, query_log: str, canary: bool) -> http.client.HTTPConnection:
    os.environ["ADIABAT_QUERY_LOG"] = query_log
    work = Path(stack.enter_context(TemporaryDirectory()))
    _, client = stack.enter_context(service(work, ROOM))
    passages = [row for _, row in read_jsonl(ROOT / "samples" / "corpus.jsonl")]
    client.upsert_passages({"id": row["_id"], "text": row["text"]} for row in passages)
    if canary:
        register(client, work / "sources", count=1)
        client.start_canary("v0@1", percent=10, sticky_by=USER, force=True)
    while client.ready().indexing:
        time.sleep(0.2)
    return http.client.HTTPConnection("127.0.0.1", int(client.url.rpartition(":")[2]))


def asked(connection: http.client.HTTPConnection, question: str) -> float:
    """Milliseconds."""
    headers = {"Content-Type": "application/json", USER: str(random.getrandbits(32))}
    began = time.perf_counter()
    connection.request("POST", "/search", json.dumps({"query": question}), headers)
    answer = connection.getresponse()
    content = answer.read()
    took = (time.perf_counter() - began) * 1000
    assert answer.status == 200, content
    return took


def ratio(each: Floats, plain: Floats) -> dict[str, float]:
    """Of the medians over all rounds, and what it is in 95% of 2,000 draws of the rounds."""
    draws = np.random.default_rng(0).integers(0, len(plain), (2_000, len(plain)))
    drawn = [np.median(each[rows]) / np.median(plain[rows]) for rows in draws]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "times": round(float(np.median(each) / np.median(plain)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


if __name__ == "__main__":
    main()
