"""Serving beside what people would run instead, and switching under load, in one run on one machine:

    python bench/serving.py --data FOLDER --work WORK [--infinity COMMAND] [--cycles 20] [--json FILE]

FOLDER holds the BEIR folder medquad, whose passages go into WORK once. Load comes from `wrk`, a process of its own,
with MedQuAD's dev questions, no two of them alike while they last, and with the query cache off: every answer is
embedded.

P1  what a user would write: FastAPI, `SentenceTransformer.encode` in its thread pool, `QdrantClient(":memory:")`
P2  infinity-emb, the embedding alone (`pip install infinity-emb[server,torch] 'click<8.2'` in an environment of its
    own; COMMAND is its `infinity_emb`)
P3  text-embeddings-inference comes as a container and is not run here:
    docker run --rm -p 8080:80 huggingface/text-embeddings-inference:cpu-1.8 --model-id MODEL

Ours and the peers take turns. A step whose figures stand in `--json` is not done again; the table says what was asked.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from residency import quantiles, register, rss_mb, service
from road import folder_of, read_judged, stored_vectors

from app.beir import read_jsonl
from app.client import AdiabatClient

ROUNDS = 3
SECONDS = 8  # of load, each turn
CLIENTS = 32
ACTIVATIONS, PER_SECOND, SWITCH_CLIENTS = 1_000, (5, 25), 8
QUESTIONS = 64  # under activations: each one's vector is known for each encoder
STEADY = 5  # cycles after which memory should not grow any more
STEADY_S = 40  # without a switch
ROOM = 2**30
SCRIPT = """
local bodies, at, bad = {}, 0, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local kept = os.getenv("ANSWERS") and io.open(os.getenv("ANSWERS"), "w")
local json = { ["Content-Type"] = "application/json" }
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", os.getenv("TARGET"), json, bodies[at])
end
if kept then
  response = function(status, headers, body) kept:write(body, "\\n") end
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %d, "failed": %d, "seconds": %f, "p50": %f, "p99": %f, "max": %f}\\n',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""
Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("bench-data"))
    parser.add_argument("--infinity", help="the command infinity_emb; without it P2 is left out")
    parser.add_argument("--cycles", type=int, default=20, help="of register, activate and delete; 200 in the full form")
    parser.add_argument("--json", type=Path, default=Path("bench/results/serving.json"))
    parser.add_argument("--peer", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        serve_peer(given.data, given.work, given.peer)
        return
    report: Report = json.loads(given.json.read_text()) if given.json.exists() else {}

    def step(name: str, run: Callable[[], Report]) -> None:
        if name not in report:
            report[name] = run()
            given.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"{name}: {json.dumps(report[name])}", flush=True)

    given.work.mkdir(parents=True, exist_ok=True)
    fill(given.data, given.work)
    questions = [query for query, _ in read_judged(given.data / "medquad", "dev")]
    step("alone", lambda: measure_alone(given.work, questions))
    step("start", lambda: measure_start(given.work))
    step("load", lambda: measure_load(given, questions))
    step("activations", lambda: measure_activations(given.work, questions[:QUESTIONS]))
    step("cycles", lambda: measure_cycles(given.work, given.cycles))
    table(report)


def fill(data: Path, work: Path) -> None:
    corpus = data / "medquad" / "corpus.jsonl"
    with service(work, ROOM) as (_, client):
        if client.count_passages() < sum(1 for _ in corpus.open()):
            command = [sys.executable, "-m", "app.cli", "ingest", str(corpus), "--url", client.url]
            subprocess.run(command, check=True)
            while client.ready().indexing:
                time.sleep(0.5)


def measure_alone(work: Path, questions: Sequence[str]) -> Report:
    """The engine and the store without a service around them, each in a process that does nothing else."""
    from app.encoders.artifacts import ArtifactStore
    from app.encoders.engine import load_engine
    from app.encoders.spec import read_spec
    from app.passages import IndexSpace, open_store
    from app.settings import Settings

    artifacts = ArtifactStore(work / "data" / "artifacts")
    base, files = artifacts.manifest("base@1"), artifacts.files("base@1")
    graphs, weights = work / "alone" / "graphs", work / "alone" / "weights"
    engine = load_engine(files, read_spec(files), kind="onnx", threads=0, graphs_dir=graphs, weights_dir=weights)
    vectors = np.concatenate([engine.embed([each]) for each in questions[:64]])  # warm
    one = [timed_ms(lambda each=each: engine.embed([each])) for each in questions[:600]]
    batches = [sorted(questions[at : at + CLIENTS], key=len) for at in range(0, 640, CLIENTS)]
    took = [timed_ms(lambda batch=batch: engine.embed(batch)) for batch in batches]
    engine.close()
    space = IndexSpace(
        passage_encoder_digest=base.digest,
        dimension=base.dimension,
        passage_prompt=base.passage_prompt,
        max_length=base.max_length,
    )
    store = open_store(Settings(data_dir=work / "data"), space)
    store.search(vectors[0], limit=10)
    found = [timed_ms(lambda vector=vector: store.search(vector, limit=10)) for vector in np.tile(vectors, (5, 1))]
    store.close()
    return {
        "encode_ms": quantiles(one),
        "search_ms": quantiles(found),
        "batched_queries_per_s": round(CLIENTS * 1000 / statistics.median(took), 1),
    }


def timed_ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def measure_start(work: Path) -> Report:
    """From the command to an answer of /health/ready, with the passages stored; then memory without a request."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with service(work, ROOM) as (pid, _):
            took.append(time.perf_counter() - began)
            time.sleep(3)
            idle = rss_mb(pid)
    return {"ready_s": [round(each, 2) for each in took], "idle_rss_mb": round(idle, 1)}


def measure_load(given: argparse.Namespace, questions: Sequence[str]) -> Report:
    work, turns = given.work, []
    searches = write_bodies(work / "searches.jsonl", [{"query": each} for each in questions])
    with ExitStack() as stack:
        _, client = stack.enter_context(service(work, ROOM))
        peer = stack.enter_context(peer_service(given))
        turns += [
            ("ours, 1 client", client.url, "/search", searches, 1),
            ("P1, 1 client", peer, "/search", searches, 1),
        ]
        turns += [
            (f"ours, {CLIENTS} clients", client.url, "/search", searches, CLIENTS),
            (f"P1, {CLIENTS} clients", peer, "/search", searches, CLIENTS),
        ]
        if given.infinity:
            model = folder_of(work, "base@1")
            infinity = stack.enter_context(infinity_service(given.infinity, model))
            asked = write_bodies(work / "embeddings.jsonl", [{"model": model, "input": [each]} for each in questions])
            turns += [(f"P2, {CLIENTS} clients", infinity, "/embeddings", asked, CLIENTS)]
        rounds: dict[str, list[Report]] = {turn[0]: [] for turn in turns}
        for _, url, path, bodies, clients in turns:
            wrk(url, path, bodies, clients, seconds=2)  # warm
        for _ in range(ROUNDS):
            for name, url, path, bodies, clients in turns:
                rounds[name].append(wrk(url, path, bodies, clients))
    return {name: middle(rows) for name, rows in rounds.items()}


def middle(rows: Sequence[Report]) -> Report:
    """Medians over the rounds; failures are summed."""
    rates = [row["requests"] / row["seconds"] for row in rows]
    return {
        "per_s": round(statistics.median(rates), 1),
        "rounds_per_s": [round(rate, 1) for rate in rates],
        **{key: round(statistics.median(row[key] for row in rows), 2) for key in ("p50", "p99")},
        "failed": sum(row["failed"] for row in rows),
    }


def wrk(
    url: str, path: str, bodies: Path, clients: int, *, seconds: float = SECONDS, answers: Path | None = None
) -> Report:
    script = bodies.with_suffix(".lua")
    script.write_text(SCRIPT)
    environment = os.environ | {"BODIES": str(bodies), "TARGET": path} | ({"ANSWERS": str(answers)} if answers else {})
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script), url]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(next(line for line in told.splitlines() if line.startswith("{"))))


def write_bodies(path: Path, bodies: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return path


@contextmanager
def peer_service(given: argparse.Namespace) -> Iterator[str]:
    folder_of(given.work, "base@1")
    port = free_port()
    command = [sys.executable, __file__, "--data", str(given.data), "--work", str(given.work), "--peer", str(port)]
    yield from running(command, port, "/ready", os.environ | {"PYTHONPATH": "."})


@contextmanager
def infinity_service(command: str, model: str) -> Iterator[str]:
    port = free_port()
    words = [command, "v2", "--model-id", model, "--port", str(port), "--device", "cpu", "--engine", "torch"]
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    yield from running([*words, "--no-bettertransformer"], port, "/health", outside | {"HF_HUB_OFFLINE": "1"})


def running(command: Sequence[str], port: int, path: str, environment: dict[str, str]) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(url + path, timeout=2).read()
                break
            except OSError:
                assert child.poll() is None, f"{command[0]} ended"
                assert time.monotonic() < until, f"{command[0]} did not start"
                time.sleep(0.3)
        yield url
    finally:
        child.terminate()
        child.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def serve_peer(data: Path, work: Path, port: int) -> None:
    """P1. The same vectors as ours; a plain function is what FastAPI runs in its thread pool."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams
    from sentence_transformers import SentenceTransformer

    class Asked(BaseModel):
        query: str

    vectors, ids = stored_vectors(work)
    texts = {row["_id"]: row["text"] for _, row in read_jsonl(data / "medquad" / "corpus.jsonl")}
    client = QdrantClient(":memory:")
    client.create_collection("passages", VectorParams(size=vectors.shape[1], distance=Distance.COSINE))
    for at in range(0, len(ids), 1_000):
        rows = range(at, min(at + 1_000, len(ids)))
        payloads = [{"id": ids[row], "text": texts[ids[row]]} for row in rows]
        points = [PointStruct(id=row, vector=vectors[row].tolist(), payload=payloads[row - at]) for row in rows]
        client.upsert("passages", points)
    model = SentenceTransformer(folder_of(work, "base@1"))
    app = FastAPI()

    @app.get("/ready")
    def ready() -> bool:
        return True

    @app.post("/search")
    def search(body: Asked) -> Report:
        found = client.query_points("passages", query=model.encode(body.query), limit=10).points
        return {"hits": [{"score": each.score, **(each.payload or {})} for each in found]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def measure_activations(work: Path, questions: Sequence[str]) -> Report:
    """1,000 switches between two encoders under 8 clients; every answer's vector is that of its named encoder."""
    bodies = write_bodies(work / "named.jsonl", [{"query": each, "with_query_vector": True} for each in questions])
    with service(work, ROOM) as (_, client):
        register(client, work / "sources", count=1)
    answers = work / "answers.jsonl"
    with service(work, ROOM) as (_, client):
        cold = client.activate("v0@1", force=True).swap
        client.activate("base@1")
        wrk(client.url, "/search", bodies, SWITCH_CLIENTS, seconds=2)
        steady = wrk(client.url, "/search", bodies, SWITCH_CLIENTS, seconds=STEADY_S, answers=work / "steady.jsonl")
        report: Report = {"cold_load_ms": round(cold.load_ms + cold.warmup_ms, 1), "steady": steady}
        for rate in PER_SECOND:
            load = subprocess.Popen(  # beside it: what follows switches while it runs
                [
                    sys.executable,
                    "-c",
                    BESIDE,
                    bodies,
                    client.url,
                    str(SWITCH_CLIENTS),
                    str(ACTIVATIONS / rate),
                    answers,
                ],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parent,
            )
            switches = switch(client, ACTIVATIONS, rate)
            told, _ = load.communicate()
            beside = json.loads(told)
            kept = [json.loads(line) for line in answers.open() if line.startswith("{")]
            wrong, by_encoder = misattributed(work, questions, kept)
            report[f"{rate} a second"] = {
                "activations": len(switches),
                "switch_us": quantiles(switches),
                "beside": beside,
                "p99_times_steady": round(beside["p99"] / steady["p99"], 2),
                "answers": len(kept),
                "by_encoder": by_encoder,
                "misattributed": wrong,
            }
    return report


BESIDE = """
import json, sys
from pathlib import Path
from serving import wrk
bodies, url, clients, seconds, answers = sys.argv[1:]
print(json.dumps(wrk(url, "/search", Path(bodies), int(clients), seconds=float(seconds), answers=Path(answers))))
"""


def switch(client: AdiabatClient, times: int, per_second: float) -> list[float]:
    """Microseconds of each switch, evenly over the time that the load takes."""
    took, due = [], time.perf_counter()
    for number in range(times):
        took.append(client.activate("base@1" if number % 2 else "v0@1", force=True).swap.switch_us)
        due += 1 / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
    return took


def misattributed(work: Path, questions: Sequence[str], answers: Sequence[Report]) -> tuple[int, dict[str, int]]:
    """Answers whose vector is not, within 1e-4, that of one of the questions by the encoder they name.

    The other encoder's vectors must be further off than that for every question, or the comparison could not tell.
    """
    from sentence_transformers import SentenceTransformer

    known = {key: SentenceTransformer(folder_of(work, key)).encode(list(questions)) for key in ("base@1", "v0@1")}
    apart = np.abs(known["base@1"] - known["v0@1"]).max(axis=1)
    assert apart.min() > 5e-4, f"the two encoders are too alike to be told apart: {apart.min():.1e}"
    wrong, used = 0, dict.fromkeys(known, 0)
    for answer in answers:
        key = f"{answer['encoder']['name']}@{answer['encoder']['version']}"
        used[key] += 1
        nearest = np.abs(known[key] - np.asarray(answer["query_vector"], dtype=np.float32)).max(axis=1).min()
        wrong += bool(nearest > 1e-4)
    return wrong, used


def measure_cycles(work: Path, cycles: int) -> Report:
    """Memory after each cycle of register, activate, back to base, delete."""
    sizes = []
    with service(work, ROOM) as (pid, client):
        for number in range(100, 100 + cycles):
            register(client, work / "sources", count=1, first=number)
            client.activate(f"v{number}@1", force=True)
            client.search("what are the symptoms of a leaking heart valve")
            client.activate("base@1")
            client.activate("v0@1", force=True)  # so that the one to be deleted is not the previous one
            client.activate("base@1")
            client.delete_encoder(f"v{number}@1")
            time.sleep(0.5)
            sizes.append(round(rss_mb(pid), 1))
    steady = sizes[min(STEADY, len(sizes)) - 1]
    return {"cycles": cycles, "rss_mb": sizes, "growth": round(sizes[-1] / steady - 1, 4)}


def table(report: Report) -> None:
    load, alone, acts = report["load"], report["alone"], report["activations"]
    one, many = load["ours, 1 client"], load[f"ours, {CLIENTS} clients"]
    floor = alone["encode_ms"]["p50"] + alone["search_ms"]["p50"]
    p2 = load.get(f"P2, {CLIENTS} clients")
    rows = [
        ("/search, 1 client: p50 over engine + store alone", one["p50"] / floor, "<=", 1.35),
        ("/search, 1 client: times faster than P1", load["P1, 1 client"]["p50"] / one["p50"], ">=", 5),
        (f"{CLIENTS} clients: throughput over P1", many["per_s"] / load[f"P1, {CLIENTS} clients"]["per_s"], ">=", 10),
        *([(f"{CLIENTS} clients: over P2's embedding alone", many["per_s"] / p2["per_s"], ">=", 2.4)] if p2 else []),
        ("throughput over the engine's batched rate", many["per_s"] / alone["batched_queries_per_s"], ">=", 0.75),
        (f"{CLIENTS} clients: p99 over p50", many["p99"] / many["p50"], "<=", 2),
        *(row for rate in PER_SECOND for row in activation_rows(rate, acts[f"{rate} a second"])),
        ("cold activation, ms", acts["cold_load_ms"], "<=", 1000),
        (f"RSS after {report['cycles']['cycles']} cycles over after {STEADY}", report["cycles"]["growth"], "<=", 0.02),
        ("idle RSS with all passages, MB", report["start"]["idle_rss_mb"], "<=", 400),
        ("ready after, s", max(report["start"]["ready_s"]), "<=", 3),
    ]
    for name, found, sign, asked in rows:
        met = found <= asked if sign == "<=" else found >= asked
        print(f"{name:<52}{found:>10.3g}   asked {sign} {asked:<7g}{'met' if met else 'NOT MET'}")


def activation_rows(rate: int, told: Report) -> list[tuple[str, float, str, float]]:
    named = f"1,000 activations, {rate} a second"
    return [
        (f"{named}: failed requests", told["beside"]["failed"], "<=", 0),
        (f"{named}: misattributed", told["misattributed"], "<=", 0),
        (f"{named}: p99 over steady", told["p99_times_steady"], "<=", 1.2),
        (f"{named}: longest switch, us", told["switch_us"]["max"], "<=", 1000),
    ]


if __name__ == "__main__":
    main()
