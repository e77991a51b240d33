"""Sends passages in batches that suit the engine, sorted by length."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from app.client import AdiabatClient, ApiError
from app.corpus import BadLine, Line, OnBad
from app.wire.passages import PassagesUpserted

WINDOW = 4096  # passages sorted by length together
BATCH_PASSAGES = 128
BATCH_CHARS = 100_000
IN_FLIGHT = 2
INDEX = re.compile(r"passages(?:\[|\.)(\d+)")


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


def ingest(
    client: AdiabatClient, lines: Iterable[Line], on_progress: Callable[[Totals], None], on_bad: OnBad
) -> Totals:
    """Send everything; safe to interrupt and run again, since what is already there is not embedded again.

    `on_bad` hears of each passage that the service refuses; where it returns, the others go on.
    """
    totals = Totals()
    source = iter(lines)
    with ThreadPoolExecutor(IN_FLIGHT) as sender:
        pending: list[Future[PassagesUpserted]] = []
        try:
            while window := list(islice(source, WINDOW)):
                unique = {line.passage["id"]: line for line in window}  # the last wins
                totals.repeated += len(window) - len(unique)
                for batch in batches(list(unique.values())):
                    if len(pending) > IN_FLIGHT:
                        _collect(pending.pop(0), totals, on_progress)
                    pending.append(sender.submit(_send, client, batch, on_bad))
                # Within a window ids are unique; across windows order decides, so wait before the next one.
                while pending:
                    _collect(pending.pop(0), totals, on_progress)
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return totals


def _send(client: AdiabatClient, batch: list[Line], on_bad: OnBad) -> PassagesUpserted:
    """One batch; a passage that the service refuses is told by its line and left out."""
    while batch:
        try:
            return client.upsert_passages(line.passage for line in batch)
        except ApiError as error:
            refused = INDEX.search(error.detail)
            if error.status != 422 or refused is None:
                raise
            bad = batch.pop(int(refused[1]))
            on_bad(BadLine(f"{bad.where}: {error.detail}"))
    return PassagesUpserted(embedded=0, metadata_updated=0, unchanged=0)


def batches(lines: list[Line]) -> Iterator[list[Line]]:
    """Longest first, cut by count and by characters."""
    batch: list[Line] = []
    chars = 0
    for line in sorted(lines, key=lambda line: -line.chars):
        if batch and (len(batch) == BATCH_PASSAGES or chars + line.chars > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(line)
        chars += line.chars
    if batch:
        yield batch


def _collect(future: Future[PassagesUpserted], totals: Totals, on_progress: Callable[[Totals], None]) -> None:
    answer = future.result()
    totals.embedded += answer.embedded
    totals.metadata_updated += answer.metadata_updated
    totals.unchanged += answer.unchanged
    on_progress(totals)
