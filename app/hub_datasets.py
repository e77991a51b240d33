"""Datasets on the hub in BEIR shape: fetched as data alone, written out as an archive of them would be.

A repository holds queries and perhaps a corpus, as `queries.jsonl`, `queries.jsonl.gz` or `queries/*.parquet`, and
judgments as `qrels/<split>.tsv` or Parquet; or a second one, often named NAME-qrels, holds these. Loading scripts,
which many repositories have, are neither fetched nor needed.
"""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from app.beir import CORPUS, QRELS_HEAD, QUERIES, SPLIT_NAME
from app.corpus.parquet import read_rows
from app.errors import BadDataset, TooLarge
from app.hub import snapshot

QRELS_FOLDERS = ("qrels", "data", "default")  # where converters to Parquet put them
QRELS = ("qrels/*.tsv", *(f"{folder}/*.parquet" for folder in QRELS_FOLDERS))
ALONE = ("*.tsv", "*.parquet", *QRELS)  # in a repository that holds nothing else
PART = re.compile(r"-\d{5}-of-\d{5}$")
# The hub's library calls so what BEIR, and a tuning, calls dev.
RENAMED = {"validation": "dev"}
CHUNK = 2**20
BROKEN_GZIP = (gzip.BadGzipFile, EOFError, ValueError)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubDataset:
    """`qrels`: the second repository, where the judgments are in one. `corpus`: whether its own corpus is wanted."""

    name: str
    revision: str | None = None
    qrels: str | None = None
    qrels_revision: str | None = None
    corpus: bool = True


def fetch(wanted: HubDataset, folder: Path, *, max_bytes: int) -> str:
    """Write it below `folder`; where it came from, commits included.

    Raises as `app.hub.snapshot` does, and `BadDataset` for what has not the shape.
    """
    kept = [QUERIES, *([CORPUS] if wanted.corpus else [])]
    patterns = [form for name in kept for form in _forms(name)] + ([] if wanted.qrels else [*QRELS])
    found = snapshot(wanted.name, wanted.revision, kind="dataset", wanted=patterns, max_bytes=max_bytes)
    room = _Room(max_bytes)
    for name in kept:
        if not room.write_lines(found, folder / name) and name == QUERIES:
            raise BadDataset(f"{wanted.name!r} on the hub holds none of {', '.join(_forms(QUERIES))} (BEIR shape).")
    said = f"hub {wanted.name}@{found.name}"
    judged = found
    if wanted.qrels:
        judged = snapshot(wanted.qrels, wanted.qrels_revision, kind="dataset", wanted=ALONE, max_bytes=max_bytes)
        said += f", qrels {wanted.qrels}@{judged.name}"
    if not room.write_qrels(judged, folder, ALONE if wanted.qrels else QRELS):
        hint = (
            "" if wanted.qrels else f" Often a second repository has them: name it as qrels, as in {wanted.name}-qrels."
        )
        raise BadDataset(f"{wanted.qrels or wanted.name!r} on the hub holds no judgments (qrels/<split>.tsv).{hint}")
    return said


def _forms(name: str) -> tuple[str, str, str]:
    """In which forms a repository may have the file, the first that is there counts."""
    return name, f"{name}.gz", f"{name.removesuffix('.jsonl')}/*.parquet"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Room:
    """Writes what was fetched, and no more than so many bytes of it: a few compressed ones may be many."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def write_lines(self, found: Path, target: Path) -> bool:
        """False where there is no form of it."""
        plain, packed, tables = (sorted(found.glob(form)) for form in _forms(target.name))
        with target.open("wb") as sink:
            if plain:
                with plain[0].open("rb") as source:
                    self._copy(source, sink)
            elif packed:
                self._unpack(packed[0], sink)
            else:
                for table in tables:
                    for row in read_rows(str(table)):
                        self._write(sink, json.dumps(_line(row), ensure_ascii=False) + "\n")
        if not (plain or packed or tables):
            target.unlink()
            return False
        return True

    def write_qrels(self, found: Path, folder: Path, patterns: tuple[str, ...]) -> bool:
        """False where there are none. Of TSV and Parquet the TSV counts."""
        paths = sorted({path for pattern in patterns for path in found.glob(pattern)})
        tables = [path for path in paths if path.suffix == ".tsv"] or paths
        (folder / "qrels").mkdir(exist_ok=True)
        taken = {_split(path) for path in tables}
        for path in tables:
            split = _split(path)
            if split in RENAMED and RENAMED[split] not in taken:
                split = RENAMED[split]
            target = folder / "qrels" / f"{split}.tsv"
            if path.suffix == ".tsv":
                with path.open("rb") as source, target.open("wb") as sink:
                    self._copy(source, sink)
            else:
                self._write_judgments(path, target)
        return bool(tables)

    def _write_judgments(self, table: Path, target: Path) -> None:
        """The parts of a split come one after the other."""
        head = "" if target.exists() else QRELS_HEAD
        with target.open("ab") as sink:
            self._write(sink, head)
            for row in read_rows(str(table)):
                self._write(sink, "\t".join(str(row.get(name, "")) for name in QRELS_HEAD.split()) + "\n")

    def _unpack(self, packed: Path, sink: IO[bytes]) -> None:
        try:
            with gzip.open(packed) as source:
                self._copy(source, sink)
        except BROKEN_GZIP as error:
            raise BadDataset(f"{packed.name} on the hub is damaged ({error}).") from error

    def _copy(self, source: _Readable, sink: IO[bytes]) -> None:
        while chunk := source.read(CHUNK):
            self._take(len(chunk))
            sink.write(chunk)

    def _write(self, sink: IO[bytes], text: str) -> None:
        written = text.encode()
        self._take(len(written))
        sink.write(written)

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooLarge(
                f"The dataset has over {self._max_bytes} bytes when it is unpacked (ADIABAT_MAX_ARCHIVE_BYTES)."
            )


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as BEIR's line: ids are strings, and what says nothing is left out."""
    said = {name: row[name] for name in ("title", "metadata") if row.get(name)}
    return {"_id": str(row.get("_id", row.get("id", ""))), "text": row.get("text") or "", **said}


def _split(path: Path) -> str:
    split = PART.sub("", path.stem)
    if not re.fullmatch(SPLIT_NAME, split):
        raise BadDataset(f"{path.name} on the hub is not named as a split is ({SPLIT_NAME}).")
    return split
