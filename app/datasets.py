"""Datasets in BEIR shape: `queries.jsonl`, `qrels/<split>.tsv`, optionally `corpus.jsonl`.

An archive is unpacked under limits, read whole once to check it, and kept below the artifact store under
the digest of its content, so that a job reads exactly what it was started with.
"""

import hashlib
import json
import lzma
import math
import re
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from app.encoders.artifacts import ArtifactStore
from app.encoders.files import fsync_tree
from app.errors import BadDataset, TooLarge
from app.registry import DatasetRecord, Registry

SPLIT = re.compile(r"qrels/([A-Za-z0-9_-]{1,64})\.tsv")
MAX_RATIO = 200
MAX_LINE_CHARS = 2**20


class DatasetStore:
    def __init__(self, artifacts: ArtifactStore, registry: Registry, max_bytes: int) -> None:
        self._artifacts = artifacts
        self._registry = registry
        self._max_bytes = max_bytes
        self.root = artifacts.root / "datasets"
        self.root.mkdir(exist_ok=True)

    def put_zip(self, name: str, archive: Path) -> DatasetRecord:
        """Check and keep the zip at `archive` as `name`. Raises `BadDataset`, `TooLarge`."""
        with self._artifacts.staging() as staging:
            _unpack(archive, staging, self._max_bytes)
            counts = _check(staging)
            digest = _digest(staging)
            target = self.root / digest.removeprefix("sha256:")
            if not target.exists():
                fsync_tree(staging)
                shutil.move(staging, target)
        return self._registry.datasets.put(name, digest, counts)

    def folder(self, digest: str) -> Path:
        return self.root / digest.removeprefix("sha256:")


def _unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = _wanted(opened)
            total = sum(info.file_size for info, _ in wanted)
            packed = max(sum(info.compress_size for info, _ in wanted), 1)
            if total > max_bytes or total > MAX_RATIO * packed:
                raise TooLarge(
                    f"The archive unpacks to {total} bytes from {packed}; the limit is {max_bytes} bytes "
                    f"(ADIABAT_MAX_ARCHIVE_BYTES) and {MAX_RATIO} times its packed size."
                )
            for info, name in wanted:
                target = folder / name
                target.parent.mkdir(exist_ok=True)
                with opened.open(info) as source, target.open("wb") as sink:
                    _copy_limited(source, sink, info.file_size)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError) as error:
        raise BadDataset(f"The body is not a zip archive that can be read ({error}).") from error


def _wanted(opened: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, str]]:
    """The entries we know, without the one top folder that zipping a folder adds. Odd names are refused."""
    files = [info for info in opened.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    for info in files:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or (info.external_attr >> 16) & 0o170000 == 0o120000:
            raise BadDataset(f"The archive entry {info.filename!r} points outside its folder; nothing was unpacked.")
    tops = {PurePosixPath(info.filename).parts[0] for info in files}
    strip = len(tops) == 1 and all(len(PurePosixPath(info.filename).parts) > 1 for info in files) and tops != {"qrels"}
    named = [(info, "/".join(PurePosixPath(info.filename).parts[strip:])) for info in files]
    wanted = [(i, n) for i, n in named if n in ("queries.jsonl", "corpus.jsonl") or SPLIT.fullmatch(n)]
    names = [name for _, name in wanted]
    if len(set(names)) < len(names):
        raise BadDataset("The archive has an entry twice; pack each file once.")
    if "queries.jsonl" not in names or not any(name.startswith("qrels/") for name in names):
        raise BadDataset(
            "The archive must hold queries.jsonl and at least one qrels/<split>.tsv (BEIR shape); "
            f"it holds {', '.join(sorted(name for _, name in named)[:10]) or 'nothing'}."
        )
    return wanted


def _copy_limited(source: Any, sink: Any, declared: int) -> None:
    """Copy, but never more than the size the entry declared: a lying header is not believed."""
    left = declared
    while chunk := source.read(min(left + 1, 2**20)):
        left -= len(chunk)
        if left < 0:
            raise BadDataset("An archive entry is larger than it says; nothing was kept.")
        sink.write(chunk)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each non-empty line. Raises `BadDataset` naming the line."""
    with path.open(encoding="utf-8", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                if len(line) > MAX_LINE_CHARS:
                    raise BadDataset(f"{path.name} line {number} has over {MAX_LINE_CHARS} characters.")
                yield number, _object(path.name, number, line)
        except UnicodeDecodeError as error:
            raise BadDataset(f"{path.name} is not UTF-8 ({error}).") from error


def _object(name: str, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{name} line {number} is not JSON ({error}).") from error
    if not isinstance(found, dict) or not isinstance(found.get("_id"), str) or not isinstance(found.get("text"), str):
        raise BadDataset(f"{name} line {number} must be an object with the strings '_id' and 'text'.")
    return found


def read_qrels(path: Path) -> Iterator[tuple[int, str, str, float]]:
    """(line number, query id, passage id, score). Raises `BadDataset` naming the line."""
    with path.open(encoding="utf-8", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, 1):
                cells = line.rstrip("\r\n").split("\t")
                if cells == [""] or (number == 1 and cells[0] in ("query-id", "query_id")):
                    continue
                yield number, *_judgment(path.name, number, cells)
        except UnicodeDecodeError as error:
            raise BadDataset(f"qrels/{path.name} is not UTF-8 ({error}).") from error


def _judgment(name: str, number: int, cells: list[str]) -> tuple[str, str, float]:
    try:
        query_id, passage_id, score = cells[0], cells[1], float(cells[2])
    except (IndexError, ValueError):
        score = math.nan
    if len(cells) != 3 or not math.isfinite(score):
        found = " ".join(cells)[:60]
        raise BadDataset(f"qrels/{name} line {number}: 'query-id<TAB>corpus-id<TAB>score' expected, not {found!r}.")
    return query_id, passage_id, score


def _check(folder: Path) -> dict[str, Any]:
    """Read everything once; counts per split and language. Raises `BadDataset` naming file and line."""
    languages: dict[str, str] = {}
    for number, query in read_jsonl(folder / "queries.jsonl"):
        if query["_id"] in languages:
            raise BadDataset(f"queries.jsonl line {number}: the id {query['_id']!r} is there twice.")
        if not query["text"].strip():
            raise BadDataset(f"queries.jsonl line {number}: the query {query['_id']!r} has no text.")
        metadata = query.get("metadata")
        languages[query["_id"]] = str(metadata.get("lang", "")) if isinstance(metadata, dict) else ""
    corpus = folder / "corpus.jsonl"
    passages = {passage["_id"] for _, passage in read_jsonl(corpus)} if corpus.exists() else None
    splits = {path.stem: _check_split(path, languages, passages) for path in sorted(folder.glob("qrels/*.tsv"))}
    return {
        "queries": len(languages),
        "languages": dict(Counter(lang for lang in languages.values() if lang)),
        "passages": None if passages is None else len(passages),
        "splits": splits,
    }


def _check_split(path: Path, queries: dict[str, str], passages: set[str] | None) -> dict[str, int]:
    pairs, used = 0, set()
    for number, query_id, passage_id, _ in read_qrels(path):
        if query_id not in queries:
            raise BadDataset(f"qrels/{path.name} line {number}: no query {query_id!r} in queries.jsonl.")
        if passages is not None and passage_id not in passages:
            raise BadDataset(f"qrels/{path.name} line {number}: no passage {passage_id!r} in corpus.jsonl.")
        pairs += 1
        used.add(query_id)
    return {"queries": len(used), "pairs": pairs}


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as source:
                while chunk := source.read(2**20):
                    total.update(chunk)
    return f"sha256:{total.hexdigest()}"
