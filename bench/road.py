"""The whole road on real data, over HTTP, as a user walks it, with its proofs:

    python bench/road.py --data FOLDER     (BEIR folders medquad, xquad-en, xquad-de, xquad-es, xquad-vi, xquad-zh)

1. ingest through the command line, beside `SentenceTransformer.encode` on a sample of the same passages, while
   `/health/live` and `/search` are asked all the time;
2. MRR@10 of the base over HTTP beside brute force over the same vectors;
3. one tuning job with the default recipe;
4. 200 switches under 8 clients, every score recomputed from the stored vector and the named encoder.

Prints a line per step and writes all to `--json`. A step whose figures stand there is not done again.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from sentence_transformers import SentenceTransformer

from app.beir import read_jsonl, read_qrels
from app.cli.datasets import zip_folder
from app.client import AdiabatClient, ApiError, Unreachable
from app.encoders.artifacts import ArtifactStore
from app.encoders.files import write_full
from app.passages import IndexSpace, open_store
from app.settings import Settings

GUARDS = ("xquad-en", "xquad-de", "xquad-es", "xquad-vi", "xquad-zh")
UNSEEN = GUARDS[1:]
PEER_PASSAGES = 1_500
RATE = 10  # of /health/live and of /search each, while passages go in
SWITCHES = 200
CLIENTS = 8
Report = dict[str, Any]
Judged = list[tuple[str, set[str]]]  # a query and the ids of its relevant passages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the BEIR folders")
    parser.add_argument("--work", type=Path, default=Path("bench-data"), help="where the service keeps its data")
    parser.add_argument("--json", type=Path, default=Path("bench/results/road.json"))
    given = parser.parse_args()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    report: Report = json.loads(given.json.read_text()) if given.json.exists() else {}

    def step(name: str, run: Callable[[], Report]) -> None:
        if name not in report:
            report[name] = run()
            given.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"{name}: {json.dumps(report[name])}", flush=True)

    judged = read_judged(given.data / "medquad", "dev")
    with service(given.work / "data") as url, AdiabatClient(url, retries=0) as client:
        step("ingest", lambda: measure_ingest(client, given.data, given.work))
        step("search", lambda: measure_search(client, judged))
        step("tuning", lambda: measure_tuning(client, given.data, given.work))
        answers = given.work / "answers.jsonl"
        step("switching", lambda: measure_switching(client, judged, report["tuning"]["encoder"], answers))
    # The vectors are read from the store itself, which one process at a time may hold.
    step("brute force", lambda: check_search(given.work, judged, report["search"]["dev_mrr"]))
    step("scores", lambda: check_scores(given.work, report["tuning"]["encoder"], answers))


@contextmanager
def service(data_dir: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "app.cli", "serve", "--data-dir", str(data_dir), "--port", str(port)]
    # Every answer is embedded: the questions come again, and it is the engine that is measured.
    child = subprocess.Popen(command, env=os.environ | {"ADIABAT_QUERY_CACHE_BYTES": "0"})
    try:
        with AdiabatClient(url, retries=0) as client:
            until = time.monotonic() + 180
            while True:
                try:
                    client.ready()
                    break
                except (Unreachable, ApiError):
                    assert child.poll() is None, "the service ended"
                    assert time.monotonic() < until, "the service did not start"
                    time.sleep(0.2)
        yield url
    finally:
        child.terminate()
        child.wait()


def measure_ingest(client: AdiabatClient, data: Path, work: Path) -> Report:
    corpus = data / "medquad" / "corpus.jsonl"
    texts = [row["text"] for _, row in read_jsonl(corpus)]
    sample = random.Random(0).sample(texts, PEER_PASSAGES)
    peer = SentenceTransformer(folder_of(work, "base@1"))
    peer.encode(sample[:64])
    before = timed(lambda: peer.encode(sample))
    done = threading.Event()
    with ThreadPoolExecutor(2) as watchers:
        live = watchers.submit(watch, client.url, "/health/live", done)
        search = watchers.submit(watch, client.url, "/search?q=what+are+the+symptoms+of+leukemia", done)
        command = [sys.executable, "-m", "app.cli", "ingest", str(corpus), "--json", "--url", client.url]
        try:
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            while client.ready().indexing:
                time.sleep(0.5)
            time.sleep(2)
        finally:
            done.set()
        lives, searches = live.result(), search.result()
    after = timed(lambda: peer.encode(sample))
    ours = len(texts) / told["took_s"]
    theirs = 2 * PEER_PASSAGES / (before + after)
    return {
        **told,
        "passages_per_s": round(ours, 1),
        "encode_passages_per_s": round(theirs, 1),
        "encode_before_and_after": [round(PEER_PASSAGES / each, 1) for each in (before, after)],
        "times_encode": round(ours / theirs, 2),
        "live_ms": quantiles(lives),
        "search_ms": quantiles(searches),
    }


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def watch(url: str, path: str, done: threading.Event) -> list[float]:
    """Latencies in ms of `RATE` requests a second, one after the other, until `done`."""
    latencies = []
    due = time.perf_counter()
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        while not done.is_set():
            began = time.perf_counter()
            http.get(path).raise_for_status()
            latencies.append((time.perf_counter() - began) * 1000)
            due = max(due + 1 / RATE, began)
            time.sleep(max(0.0, due - time.perf_counter()))
    return latencies


def quantiles(values: list[float]) -> Report:
    at = np.percentile(values, [50, 99])
    return {"n": len(values), "p50": round(at[0], 1), "p99": round(at[1], 1), "max": round(max(values), 1)}


def measure_search(client: AdiabatClient, judged: Judged) -> Report:
    with ThreadPoolExecutor(4) as clients:
        found = list(clients.map(lambda item: reciprocal_rank(client, *item), judged))
    return {"queries": len(judged), "dev_mrr": round(float(np.mean(found)), 5)}


def check_search(work: Path, judged: Judged, over_http: float) -> Report:
    """MRR@10 of `SentenceTransformer.encode` and a matrix product over the stored vectors."""
    vectors, ids = stored_vectors(work)
    queries = SentenceTransformer(folder_of(work, "base@1")).encode([query for query, _ in judged])
    ranks = []
    for vector, (_, relevant) in zip(queries, judged, strict=True):
        top = np.argsort(-(vectors @ vector), kind="stable")[:10]
        ranks.append(next((1 / rank for rank, row in enumerate(top, 1) if ids[row] in relevant), 0.0))
    exact = float(np.mean(ranks))
    return {"dev_mrr": round(exact, 5), "difference": round(over_http - exact, 5)}


def measure_tuning(client: AdiabatClient, data: Path, work: Path) -> Report:
    """The job as a user starts it: default recipe, dev and guards in its result."""
    with TemporaryDirectory(dir=work) as scratch:
        archive = Path(scratch) / "dataset.zip"
        client.put_dataset("medquad", zip_folder(data / "medquad", archive, corpus=False))
        for guard in GUARDS:
            client.put_dataset(guard, zip_folder(data / guard, archive))
    began = time.monotonic()
    job = client.create_tuning_job("medquad", "medquad", guards=list(GUARDS))
    job = client.wait_for_job(job.id)
    result = job.result or {}
    guards = {name: figures["after"] - figures["before"] for name, figures in result.get("guards", {}).items()}
    relative = [result["guards"][name]["relative"] for name in UNSEEN] if guards else []
    return {
        "status": job.status,
        "reason": job.reason,
        "encoder": f"{job.encoder.name}@{job.encoder.version}" if job.encoder else None,
        "recipe": job.recipe,
        "took_s": round(time.monotonic() - began, 1),
        "dev_gain": round(result["dev"]["after"] - result["dev"]["before"], 4) if result else None,
        "mean_relative_guard_change": round(float(np.mean(relative)), 4) if relative else None,
        "worst_guard": round(min(guards.values()), 4) if guards else None,
        "result": result,
    }


def measure_switching(client: AdiabatClient, judged: Judged, tuned: str, answers: Path) -> Report:
    """Switch to `tuned` and back under load; every answer is kept for `check_scores`."""
    done = threading.Event()

    def searching(first: int) -> list[Report]:
        kept, number = [], first
        with AdiabatClient(client.url, retries=0) as own:
            while not done.is_set():
                query = judged[number % len(judged)][0]
                began = time.perf_counter()
                answer = own.search(query)
                took_ms = (time.perf_counter() - began) * 1000
                hits = [[hit.id, hit.score] for hit in answer.hits]
                kept.append({"query": query, "encoder": answer.encoder.model_dump(), "hits": hits, "ms": took_ms})
                number += CLIENTS
        return kept

    client.activate(tuned, force=True)  # whatever its gate said: this measures switches
    switches_us = []
    with ThreadPoolExecutor(CLIENTS) as clients:
        futures = [clients.submit(searching, first) for first in range(CLIENTS)]
        for number in range(SWITCHES):
            switched = client.activate("base@1" if number % 2 == 0 else tuned, force=True)
            switches_us.append(switched.swap.switch_us)
        done.set()
        kept = [answer for future in futures for answer in future.result()]  # a failed request raises here
    answers.write_text("".join(json.dumps(answer) + "\n" for answer in kept))
    used: dict[str, int] = defaultdict(int)
    for answer in kept:
        used[f"{answer['encoder']['name']}@{answer['encoder']['version']}"] += 1
    return {
        "switches": SWITCHES,
        "requests": len(kept),
        "failed": 0,
        "by_encoder": used,
        "latency_ms": quantiles([answer["ms"] for answer in kept]),
        "switch_us": quantiles(switches_us),
    }


def check_scores(work: Path, tuned: str, answers: Path) -> Report:
    """Every hit's score against the stored vector and the named encoder's `SentenceTransformer.encode`.

    Only questions count on which the two encoders differ by more than 1e-2 for the hit: else a wrong name
    could not be seen.
    """
    vectors, ids = stored_vectors(work)
    row_of = {passage_id: row for row, passage_id in enumerate(ids)}
    kept = [json.loads(line) for line in answers.open()]
    texts = sorted({answer["query"] for answer in kept})
    models = {key: SentenceTransformer(folder_of(work, key)) for key in ("base@1", tuned)}
    encoded = {key: dict(zip(texts, model.encode(texts), strict=True)) for key, model in models.items()}
    errors, telling, wrong = [], 0, 0
    for answer in kept:
        key = f"{answer['encoder']['name']}@{answer['encoder']['version']}"
        other = tuned if key == "base@1" else "base@1"
        for passage_id, score in answer["hits"]:
            vector = vectors[row_of[passage_id]]
            named, unnamed = (float(vector @ encoded[k][answer["query"]]) for k in (key, other))
            errors.append(abs(score - named))
            if abs(named - unnamed) > 1e-2:
                telling += 1
                wrong += abs(score - named) > 1e-4
    return {"hits": len(errors), "telling_hits": telling, "wrong": wrong, "largest_error": max(errors)}


def stored_vectors(work: Path) -> tuple[np.ndarray, list[str]]:
    """All stored vectors (n, dim) and their ids, exported by the store itself."""
    folder = work / "export"
    if not (folder / "meta.json").exists():
        base = ArtifactStore(work / "data" / "artifacts").manifest("base@1")
        space = IndexSpace(
            passage_encoder_digest=base.digest,
            dimension=base.dimension,
            passage_prompt=base.passage_prompt,
            max_length=base.max_length,
        )
        store = open_store(Settings(data_dir=work / "data"), space)
        store.export(folder)
        store.close()
    return np.load(folder / "vectors.npy"), json.loads((folder / "ids.json").read_text())


def folder_of(work: Path, key: str) -> str:
    """An encoder as a plain sentence-transformers folder."""
    folder = work / key
    if not folder.exists():
        write_full(ArtifactStore(work / "data" / "artifacts").files(key), folder)
    return str(folder)


def read_judged(folder: Path, split: str) -> Judged:
    texts = {query["_id"]: query["text"] for _, query in read_jsonl(folder / "queries.jsonl")}
    relevant: dict[str, set[str]] = defaultdict(set)
    for _, query_id, passage_id, _ in read_qrels(folder / "qrels" / f"{split}.tsv"):
        relevant[query_id].add(passage_id)
    return [(texts[query_id], ids) for query_id, ids in relevant.items()]


def reciprocal_rank(client: AdiabatClient, query: str, relevant: set[str]) -> float:
    hits = client.search(query, limit=10, encoder="base@1").hits
    return next((1 / rank for rank, hit in enumerate(hits, 1) if hit.id in relevant), 0.0)


if __name__ == "__main__":
    main()
