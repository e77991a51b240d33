"""A dataset as NDJSON, one line for each query with what answers it, written out in BEIR shape."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import orjson
from pydantic import ValidationError

from app.beir import CORPUS, MAX_LINE_CHARS, QRELS_HEAD, QUERIES
from app.errors import BadDataset
from app.plainly import given
from app.wire import findings
from app.wire.datasets import PassageLine, QueryLine

MAX_SPLITS = 100


def write_beir(source: Path, folder: Path) -> None:
    """Turn the lines of `source` into files below `folder`. Raises `BadDataset` naming the line."""
    with ExitStack() as files:
        out = _Folder(folder, files)
        for number, line in read_lines(source):
            if isinstance(line, PassageLine):
                out.add_passage(number, line)
            else:
                out.add_query(number, line)
        out.check()


def read_lines(source: Path) -> Iterator[tuple[int, QueryLine | PassageLine]]:
    """(line number, what it says) for each non-empty line; memory for one line at a time."""
    with source.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_CHARS + 1), b""), 1):
            if len(line) > MAX_LINE_CHARS:
                raise BadDataset(f"line {number} has over {MAX_LINE_CHARS} bytes.")
            if line.strip():
                yield number, _parse(number, line)


def _parse(number: int, line: bytes) -> QueryLine | PassageLine:
    try:
        found = orjson.loads(line)
        if not isinstance(found, dict):
            raise BadDataset(f"line {number}: the line must be an object, not {given(found)}.")
        model = PassageLine if "passage" in found else QueryLine
        return model.model_validate(found)
    except ValidationError as error:
        raise BadDataset(f"line {number}: {findings.of_line(error)}.") from error
    except orjson.JSONDecodeError as error:
        raise BadDataset(f"line {number} is not JSON ({error}).") from error


class _Folder:
    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        self._files = files
        self._open: dict[str, IO[str]] = {}
        self._queries: set[str] = set()
        self._passages: set[str] = set()
        self._judged: dict[str, int] = {}  # passage id -> the first line that names it

    def add_query(self, number: int, line: QueryLine) -> None:
        query_id = line.id or f"q{number}"
        if query_id in self._queries:
            raise BadDataset(f"line {number}: the query id {query_id!r} is there twice.")
        if not line.relevant:
            raise BadDataset(f"line {number}: relevant: name at least one passage.")
        self._queries.add(query_id)
        metadata = {"metadata": {"lang": line.lang}} if line.lang else {}
        self._write(QUERIES, {"_id": query_id, "text": line.query, **metadata})
        qrels = self._file(f"qrels/{line.split}.tsv", QRELS_HEAD)
        for passage_id in line.relevant:
            self._judged.setdefault(passage_id, number)
            score = line.relevant[passage_id] if isinstance(line.relevant, dict) else 1
            qrels.write(f"{query_id}\t{passage_id}\t{score:g}\n")

    def add_passage(self, number: int, line: PassageLine) -> None:
        if line.id in self._passages:
            raise BadDataset(f"line {number}: the passage id {line.id!r} is there twice.")
        self._passages.add(line.id)
        self._write(CORPUS, {"_id": line.id, "title": line.title, "text": line.passage})

    def check(self) -> None:
        if not self._queries:
            raise BadDataset('There is no line with a query, such as {"query": "why", "relevant": ["passage-1"]}.')
        for passage_id, number in self._judged.items():
            if self._passages and passage_id not in self._passages:
                raise BadDataset(f"line {number}: no line has the passage {passage_id!r}; give all or none of them.")

    def _write(self, name: str, record: dict[str, object]) -> None:
        self._file(name).write(json.dumps(record, ensure_ascii=False) + "\n")

    def _file(self, name: str, head: str = "") -> IO[str]:
        if name not in self._open:
            if len(self._open) > MAX_SPLITS:
                raise BadDataset(f"The lines name over {MAX_SPLITS} splits; a dataset has a handful.")
            path = self._folder / name
            path.parent.mkdir(exist_ok=True)
            self._open[name] = self._files.enter_context(path.open("w", encoding="utf-8", newline="\n"))
            self._open[name].write(head)
        return self._open[name]
