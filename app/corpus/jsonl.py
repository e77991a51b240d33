"""JSONL: an object to a line, as in a BEIR corpus or plain."""

from collections.abc import Iterator
from typing import TextIO

from app.corpus.line import FIELDS, Json, Line, OnBad, parse, read_each, to_passage
from app.plainly import likely

EXPECTED = 'a line is an object, as {"id": "1", "text": "…"}; CSV and Parquet are known by their suffix, or by --format'


def read_jsonl(name: str, lines: TextIO, on_bad: OnBad) -> Iterator[Line]:
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    return read_each(f"{name} line", numbered, _of_json, on_bad)


def _of_json(line: str) -> Json:
    if not line.lstrip().startswith("{"):
        raise ValueError(f"is not JSON of a passage: {EXPECTED}")
    found = parse(line)
    if unknown := sorted(set(found) - FIELDS):
        told = likely(unknown[0], FIELDS - {"_id"})
        raise ValueError(f"has the unknown field {unknown[0]!r} ({told}); put your own fields under 'metadata'")
    return to_passage(found)
