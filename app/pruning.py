"""Deletes what is stored and no longer in the files. Holds ids only; may be interrupted and begun anew."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from app.client import AdiabatClient
from app.corpus import Line

PAGE = 1_000
OnProgress = Callable[[int], None]  # how many so far


def noting(lines: Iterable[Line], ids: set[str]) -> Iterator[Line]:
    """The same lines; `ids` gets the id of each."""
    for line in lines:
        ids.add(line.passage["id"])
        yield line


def stored_beside(client: AdiabatClient, kept: Collection[str], on_progress: OnProgress) -> list[str]:
    """The ids of stored passages that are not among `kept`."""
    beside: list[str] = []
    cursor, seen = None, 0
    while True:
        page = client.passages(cursor, limit=PAGE)
        beside += [passage.id for passage in page.passages if passage.id not in kept]
        seen += len(page.passages)
        on_progress(seen)
        if (cursor := page.next_cursor) is None:
            return beside


def delete(client: AdiabatClient, ids: Sequence[str], on_progress: OnProgress) -> int:
    """How many of them were still there."""
    deleted = 0
    for start in range(0, len(ids), PAGE):
        deleted += client.delete_passages(list(ids[start : start + PAGE]))
        on_progress(start + PAGE)
    return deleted
