"""How the Edge store grows, from ten thousand vectors to a million:

    python bench/million.py --data FOLDER --work WORK [--sizes 10000 100000 1000000] [--json FILE] [--picture FILE.png]

The vectors are MedQuAD's, as `bench/serving.py` stored them in WORK, each as often as it takes, moved by noise in a
random direction to a cosine of about 0.9 and made unit length again; the queries are MedQuAD's dev questions. Each size
is filled, indexed and closed, then opened by a process of its own, which tells what its searches and its memory cost.
A size whose figures stand in `--json` is not done again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from residency import rss_mb
from road import folder_of, read_judged, stored_vectors
from store import BATCH, p50, points_of, recall

from app.passages import IndexSpace
from app.passages.edge import EdgeStore
from app.pictures import LINES, picture

COSINE = 0.9
QUESTIONS = 300
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("bench-data"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.opened:
        print(json.dumps(searched(given.opened)))
        return
    kept = given.json is not None and given.json.exists()
    report: dict[str, dict[str, float]] = json.loads(given.json.read_text()) if kept else {}
    for size in given.sizes:
        if str(size) not in report:
            report[str(size)] = measure(given.data, given.work, size)
            if given.json:
                given.json.write_text(json.dumps(report, indent=1) + "\n")
        print(size, json.dumps(report[str(size)]), flush=True)
    if given.picture:
        draw(given.picture, report)


def measure(data: Path, work: Path, size: int) -> dict[str, float]:
    with TemporaryDirectory(dir=work) as folder:
        queries = questions(data, work)
        np.save(Path(folder) / "queries.npy", queries)
        vectors = moved(stored_vectors(work)[0], size)
        store = EdgeStore(Path(folder) / "passages", space(vectors.shape[1]), index_after=10**9)
        began = time.perf_counter()
        for at in range(0, size, BATCH):
            store.upsert(points_of(vectors, at))
        filled = time.perf_counter() - began
        store.close()
        del vectors
        store = EdgeStore(Path(folder) / "passages", space(queries.shape[1]), index_after=1)
        began = time.perf_counter()
        store.wait_indexed()
        indexed = time.perf_counter() - began
        store.close()
        child = [sys.executable, __file__, "--opened", folder]
        told = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
        files = (path.stat() for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".npy")
        disk = sum(stat.st_blocks * 512 for stat in files) / 1e6
    return {"filled_per_s": round(size / filled), "index_s": round(indexed, 1), **told, "disk_mb": round(disk)}


def searched(folder: Path) -> dict[str, float]:
    queries = np.load(folder / "queries.npy")
    before = rss_mb(os.getpid())
    began = time.perf_counter()
    store = EdgeStore(folder / "passages", space(queries.shape[1]), index_after=10**9)
    opened = time.perf_counter() - began
    p50(store, queries)  # once over, so that the pages are there
    quick = p50(store, queries)
    found = recall(store, queries)
    memory = rss_mb(os.getpid()) - before
    told = {"open_s": opened, "p50_ms": quick, "exact_p50_ms": p50(store, queries[:50], exact=True)}
    assert store.info().indexed
    store.close()
    rounded = {name: round(value, 3) for name, value in told.items()}
    return {**rounded, "recall_at_10": round(found, 4), "rss_mb": round(memory)}


def space(dimension: int) -> IndexSpace:
    return IndexSpace(passage_encoder_digest="bench", dimension=dimension)


def questions(data: Path, work: Path) -> Floats:
    from sentence_transformers import SentenceTransformer

    texts = [query for query, _ in read_judged(data / "medquad", "dev")[:QUESTIONS]]
    return np.asarray(SentenceTransformer(folder_of(work, "base@1")).encode(texts, normalize_embeddings=True))


def moved(vectors: Floats, size: int) -> Floats:
    """(size, dim) of unit length, the given ones in turn, each turned away by a random angle of cosine `COSINE`."""
    random = np.random.default_rng(0)
    made = np.empty((size, vectors.shape[1]), dtype=np.float32)
    for at in range(0, size, len(vectors)):
        part = vectors[: size - at]
        noise = random.standard_normal(part.shape, dtype=np.float32)
        noise -= (noise * part).sum(1, keepdims=True) * part
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        made[at : at + len(part)] = COSINE * part + np.sqrt(1 - COSINE**2) * noise
    return made


def draw(path: Path, report: dict[str, dict[str, float]]) -> None:
    sizes = sorted(map(int, report))
    shown = {"p50 of a search, ms": "p50_ms", "recall@10": "recall_at_10", "RSS, MB": "rss_mb", "disk, MB": "disk_mb"}
    with picture(path, 11, 2.6) as figure:
        for axis, (title, key) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
            axis.plot(sizes, [report[str(size)][key] for size in sizes], "o-", color=LINES[0])
            axis.set(xscale="log", title=title, xlabel="vectors", ylim=0)


if __name__ == "__main__":
    main()
