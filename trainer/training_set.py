"""Reads what a tuning learns from and is measured on: a matrix of passage vectors and judged queries.

A matrix folder holds `vectors.npy` (n, dim) fp32, `ids.json`, `groups.npy` (n,) int32 (rows with the same
text share a number) and `meta.json`, which is written last. A dataset folder has BEIR shape. Neither
passage texts nor the store are needed: a query points at rows of the matrix.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.beir import language, read_jsonl, read_qrels
from app.errors import BadDataset
from app.recipe import MIN_PAIRS


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """Passages as vectors: row i of `vectors` (n, dim) belongs to `ids[i]`; equal `groups`, equal texts."""

    ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    groups: NDArray[np.int32]
    meta: Mapping[str, Any]

    def row_of(self) -> dict[str, int]:
        return {passage_id: row for row, passage_id in enumerate(self.ids)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Queries with the rows of their relevant passages; `missing` names qrels whose passage is gone.

    A query all of whose passages are missing is not among the queries: it could only count as a miss.
    `langs`: what the query's metadata says, "" where it says nothing.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    langs: tuple[str, ...]
    relevant: tuple[NDArray[np.int64], ...]
    missing: tuple[tuple[str, str], ...]

    @property
    def pairs(self) -> int:
        return sum(len(rows) for rows in self.relevant)

    def take(self, numbers: Iterable[int]) -> "Judged":
        """The queries with these numbers, in this order, and what is missing of them."""
        kept = list(numbers)
        ids = tuple(self.ids[i] for i in kept)
        names = set(ids)
        return Judged(
            ids=ids,
            texts=tuple(self.texts[i] for i in kept),
            langs=tuple(self.langs[i] for i in kept),
            relevant=tuple(self.relevant[i] for i in kept),
            missing=tuple(pair for pair in self.missing if pair[0] in names),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """What `tune` learns from: queries merged by text, so that each text knows all its positives."""

    matrix: Matrix
    queries: Judged

    def sample(self, pairs: int, *, seed: int) -> "TrainingSet":
        """Queries by lot, until they have so many pairs or there are no more."""
        drawn = np.random.default_rng(seed).permutation(len(self.queries.ids))
        ends = np.cumsum([len(self.queries.relevant[i]) for i in drawn])
        count = int(np.searchsorted(ends, pairs)) + 1
        return TrainingSet(matrix=self.matrix, queries=self.queries.take(np.sort(drawn[:count]).tolist()))


def read_matrix(folder: Path) -> Matrix:
    """Opens a matrix folder; the vectors stay on disk and are paged in as they are read."""
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    ids = tuple(json.loads((folder / "ids.json").read_text("utf-8")))
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    groups = np.load(folder / "groups.npy")
    if not len(ids) == len(vectors) == len(groups) == meta["count"] or vectors.shape[1] != meta["dim"]:
        raise BadDataset(
            f"{folder}: {len(ids)} ids, vectors of shape {vectors.shape} and {len(groups)} groups do not fit "
            f"meta.json ({meta['count']} x {meta['dim']}); prepare it again."
        )
    return Matrix(ids=ids, vectors=vectors, groups=groups, meta=meta)


def read_training_set(folder: Path, dataset: Path, *, split: str = "train") -> TrainingSet:
    """The matrix in `folder` and the `split` queries of `dataset`, checked to be enough to learn from."""
    matrix = read_matrix(folder)
    queries = merge_by_text(read_judged(dataset, split, matrix))
    if queries.pairs < MIN_PAIRS:
        gone = f" ({len(queries.missing)} more name passages that are not stored)" if queries.missing else ""
        raise BadDataset(
            f"The {split} split has {queries.pairs} pairs of a query and a stored passage{gone}; "
            f"a tuning needs at least {MIN_PAIRS}. Add judged queries or ingest the missing passages."
        )
    if len(queries.texts) == 1:
        raise BadDataset(f"Every query of the {split} split is the same; a tuning needs different queries.")
    return TrainingSet(matrix=matrix, queries=queries)


def read_judged(dataset: Path, split: str, matrix: Matrix) -> Judged:
    """The queries of one split with the rows of their relevant passages, in the order of the qrels file."""
    queries = {query["_id"]: query for _, query in read_jsonl(dataset / "queries.jsonl")}
    row_of = matrix.row_of()
    relevant: dict[str, dict[int, None]] = {}
    missing: list[tuple[str, str]] = []
    for line, query_id, passage_id, score in read_qrels(_split_file(dataset, split)):
        if score <= 0:
            continue
        if query_id not in queries:
            raise BadDataset(f"qrels/{split}.tsv, line {line}: query '{query_id}' is not in queries.jsonl.")
        if passage_id in row_of:
            relevant.setdefault(query_id, {})[row_of[passage_id]] = None
        else:
            missing.append((query_id, passage_id))
    return Judged(
        ids=tuple(relevant),
        texts=tuple(queries[query_id]["text"] for query_id in relevant),
        langs=tuple(language(queries[query_id]) for query_id in relevant),
        relevant=tuple(np.fromiter(rows, dtype=np.int64) for rows in relevant.values()),
        missing=tuple(missing),
    )


def read_measured(name: str, dataset: Path, matrix: Matrix, *, split: str) -> Judged:
    """The queries of dev or a guard called `name`; refused without a single one that can be measured."""
    judged = read_judged(dataset, split, matrix)
    if not judged.texts:
        raise BadDataset(
            f"The set '{name}' has no query in its {split} split whose relevant passage is there "
            f"({len(judged.missing)} name a missing passage); nothing could be measured on it."
        )
    return judged


def _split_file(dataset: Path, split: str) -> Path:
    path = dataset / "qrels" / f"{split}.tsv"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.tsv"))) or "none"
        raise BadDataset(f"The dataset '{dataset.name}' has no {split} split (qrels/{split}.tsv); it has: {there}.")
    return path


def merge_by_text(judged: Judged) -> Judged:
    """One query per text: what one asker calls relevant is no negative for another's same words."""
    first: dict[str, int] = {}
    rows: dict[str, dict[int, None]] = {}
    for number, (text, relevant) in enumerate(zip(judged.texts, judged.relevant, strict=True)):
        key = " ".join(text.split()).casefold()
        first.setdefault(key, number)
        rows.setdefault(key, {}).update(dict.fromkeys(relevant.tolist()))
    return replace(
        judged.take(first.values()),
        relevant=tuple(np.fromiter(r, dtype=np.int64) for r in rows.values()),
        missing=judged.missing,
    )
