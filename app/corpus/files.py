"""Which reader a file gets, and its opening."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from app.corpus import parquet
from app.corpus.jsonl import read_jsonl
from app.corpus.line import Line, OnBad
from app.corpus.tables import read_csv, read_parquet
from app.errors import BadInput


class Format(StrEnum):
    JSONL = "jsonl"  # an object to a line
    CSV = "csv"  # with a header row
    PARQUET = "parquet"  # with the extra adiabat[parquet]


def read_files(names: Sequence[str], on_bad: OnBad, format: Format | None = None) -> Iterator[Line]:
    """The passages of all files, '-' being standard input; `format` None: by suffix. Raises `BadInput`."""
    for name in names:
        if "://" in name or Path(name).is_dir():
            raise _no_file(name)
        match format or _by_suffix(name):
            case Format.PARQUET:
                yield from read_parquet(name, on_bad)
            case Format.CSV:
                with _opened(name) as text:
                    yield from read_csv(_said(name), text, on_bad)
            case Format.JSONL:
                with _opened(name) as text:
                    yield from read_jsonl(_said(name), text, on_bad)


def count(names: Sequence[str], format: Format | None = None) -> int | None:
    """About how many passages there are; None where looking would use them up, as in a pipe."""
    if not all(Path(name).is_file() for name in names):
        return None
    return sum(_count(name, format or _by_suffix(name)) for name in names)


def _count(name: str, format: Format) -> int:
    if format is Format.PARQUET:
        return parquet.count_rows(name)
    try:
        with Path(name).open("rb") as lines:
            return sum(1 for line in lines if line.strip()) - (format is Format.CSV)
    except OSError as error:
        raise _unreadable(name, error) from error


def _by_suffix(name: str) -> Format:
    return {".csv": Format.CSV, ".parquet": Format.PARQUET}.get(Path(name).suffix.lower(), Format.JSONL)


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    """Bytes that are not UTF-8 come through as surrogates, and are told by their line."""
    if name == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="")
        yield sys.stdin
        return
    try:
        text = Path(name).open(encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: SIM115 - below
    except OSError as error:
        raise _unreadable(name, error) from error
    with text:
        yield text


def _unreadable(name: str, error: OSError) -> BadInput:
    return BadInput(f"{name} cannot be read ({error.strerror}); give a file, or '-' for standard input.")


def _no_file(name: str) -> BadInput:
    if "://" in name:  # what follows '?' may be a signature
        said = f"{name.partition('?')[0]} is not read from here"
        return BadInput(f"{said}; fetch it, or send what fetches it to standard input, as '-'.")
    inside: list[Path] = []
    with suppress(OSError):
        inside = [each for each in Path(name).iterdir() if each.suffix in (".jsonl", ".csv", ".parquet")]
    first = min(inside, key=lambda each: (each.stem != "corpus", each.name), default=None)
    return BadInput(f"{name} is a folder; give {f'a file in it, such as {first}' if first else 'files'}.")


def _said(name: str) -> str:
    return "standard input" if name == "-" else name
