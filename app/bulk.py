"""Reads passages from files and sends them in batches that suit the engine, sorted by length."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

from app.client import AdiabatClient
from app.errors import BadInput

WINDOW = 4096  # passages sorted by length together
BATCH_PASSAGES = 128
BATCH_CHARS = 100_000
IN_FLIGHT = 2
FIELDS = frozenset({"_id", "id", "text", "title", "metadata"})

Json = dict[str, Any]


class BadLine(BadInput):
    """A line that is not a passage."""


@dataclass(kw_only=True, slots=True)
class Totals:
    embedded: int = 0
    metadata_updated: int = 0
    unchanged: int = 0
    repeated: int = 0
    bad_lines: int = 0

    @property
    def done(self) -> int:
        return self.embedded + self.metadata_updated + self.unchanged


def read_passages(name: str, lines: TextIO, on_bad: Callable[[BadLine], None]) -> Iterator[Json]:
    """Passages of a BEIR corpus.jsonl or plain JSONL (`_id` or `id`, `text`, `title`, `metadata`)."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _passage(line)
        except ValueError as error:
            on_bad(BadLine(f"{name} line {number}: {error}"))


def _passage(line: str) -> Json:
    try:
        found = json.loads(line)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object")
    if unknown := sorted(set(found) - FIELDS):
        raise ValueError(f"has the unknown field {unknown[0]!r}; put your own fields under 'metadata'")
    passage_id = found.get("_id", found.get("id"))
    if not isinstance(passage_id, str | int) or isinstance(passage_id, bool) or passage_id == "":
        raise ValueError("has no '_id' or 'id' (a string)")
    text, title, metadata = found.get("text"), found.get("title") or "", found.get("metadata") or {}
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the passage {passage_id!r} has no text")
    if not isinstance(title, str) or not isinstance(metadata, dict):
        raise ValueError(f"the passage {passage_id!r} needs a string as title and an object as metadata")
    return {"id": str(passage_id), "text": text, "title": title, "metadata": metadata}


def ingest(client: AdiabatClient, passages: Iterable[Json], on_progress: Callable[[Totals], None]) -> Totals:
    """Send everything; safe to interrupt and run again, since what is already there is not embedded again."""
    totals = Totals()
    source = iter(passages)
    with ThreadPoolExecutor(IN_FLIGHT) as sender:
        pending: list[Future[Json]] = []
        try:
            while window := list(islice(source, WINDOW)):
                unique = {passage["id"]: passage for passage in window}  # the last wins
                totals.repeated += len(window) - len(unique)
                for batch in batches(list(unique.values())):
                    if len(pending) > IN_FLIGHT:
                        _collect(pending.pop(0), totals, on_progress)
                    pending.append(sender.submit(client.upsert_passages, batch))
                # Within a window ids are unique; across windows order decides, so wait before the next one.
                while pending:
                    _collect(pending.pop(0), totals, on_progress)
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return totals


def batches(passages: list[Json]) -> Iterator[list[Json]]:
    """Longest first, cut by count and by characters."""
    passages.sort(key=lambda passage: -len(passage["text"]) - len(passage["title"]))
    batch: list[Json] = []
    chars = 0
    for passage in passages:
        size = len(passage["text"]) + len(passage["title"])
        if batch and (len(batch) == BATCH_PASSAGES or chars + size > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(passage)
        chars += size
    if batch:
        yield batch


def _collect(future: Future[Json], totals: Totals, on_progress: Callable[[Totals], None]) -> None:
    answer = future.result()
    totals.embedded += answer["embedded"]
    totals.metadata_updated += answer["metadata_updated"]
    totals.unchanged += answer["unchanged"]
    on_progress(totals)
