"""The BEIR shape on disk: `queries.jsonl`, `qrels/<split>.tsv`, optionally `corpus.jsonl`. Read, checked, counted."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from app.errors import BadDataset

QUERIES, CORPUS = "queries.jsonl", "corpus.jsonl"
SPLIT_NAME = r"[A-Za-z0-9_-]{1,64}"
QRELS = re.compile(rf"qrels/({SPLIT_NAME})\.tsv")
QRELS_HEAD = "query-id\tcorpus-id\tscore\n"
MAX_LINE_CHARS = 2**20


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


def splits(folder: Path) -> list[Path]:
    return sorted(folder.glob("qrels/*.tsv"))


def check(folder: Path) -> dict[str, Any]:
    """Read everything once; counts per split and language. Raises `BadDataset` naming file and line."""
    languages = _languages(folder / QUERIES)
    corpus = folder / CORPUS
    passages = {passage["_id"] for _, passage in read_jsonl(corpus)} if corpus.exists() else None
    return {
        "queries": len(languages),
        "languages": counted(languages.values()),
        "passages": None if passages is None else len(passages),
        "splits": {path.stem: _check_split(path, languages, passages) for path in splits(folder)},
    }


def _languages(path: Path) -> dict[str, str]:
    """Query id -> its language, "" where none is said."""
    languages: dict[str, str] = {}
    for number, query in read_jsonl(path):
        if query["_id"] in languages:
            raise BadDataset(f"{path.name} line {number}: the id {query['_id']!r} is there twice.")
        if not query["text"].strip():
            raise BadDataset(f"{path.name} line {number}: the query {query['_id']!r} has no text.")
        languages[query["_id"]] = language(query)
    return languages


def language(query: Mapping[str, Any]) -> str:
    """What a query's metadata says of its language; "" where it says nothing."""
    metadata = query.get("metadata")
    return str(metadata.get("lang", "")) if isinstance(metadata, dict) else ""


def counted(languages: Iterable[str]) -> dict[str, int]:
    """How many queries have each language; those that say none are left out."""
    return dict(Counter(language for language in languages if language))


def _check_split(path: Path, languages: Mapping[str, str], passages: set[str] | None) -> dict[str, Any]:
    pairs, used = 0, set()
    for number, query_id, passage_id, _ in read_qrels(path):
        if query_id not in languages:
            raise BadDataset(f"qrels/{path.name} line {number}: no query {query_id!r} in queries.jsonl.")
        if passages is not None and passage_id not in passages:
            raise BadDataset(f"qrels/{path.name} line {number}: no passage {passage_id!r} in corpus.jsonl.")
        pairs += 1
        used.add(query_id)
    return {"queries": len(used), "pairs": pairs, "languages": counted(languages[query] for query in used)}


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return _digest((path.relative_to(folder).as_posix(), path.stat().st_size, _chunks(path)) for path in paths)


def digest_of(files: Mapping[str, bytes]) -> str:
    """The digest of a folder with these files."""
    paths = sorted(map(PurePosixPath, files))
    return _digest((str(path), len(files[str(path)]), [files[str(path)]]) for path in paths)


def _digest(files: Iterable[tuple[str, int, Iterable[bytes]]]) -> str:
    total = hashlib.sha256()
    for name, size, chunks in files:
        total.update(f"{name}\0{size}\0".encode())
        for chunk in chunks:
            total.update(chunk)
    return f"sha256:{total.hexdigest()}"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while chunk := source.read(2**20):
            yield chunk
