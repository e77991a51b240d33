"""Hits put together by a field of their metadata, as Qdrant's groups are. Knows no Qdrant.

Made here and not by the store: Qdrant Edge has no groups, and a server's know nothing of the fusion that is made here
too. What is grouped is the beginning of a ranking, so any store and any mode is grouped alike.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from app.errors import InvalidField
from app.passages.store import Hit

_PART = r'[^\s."\[\]\\]+|"[^"\\]+"'
_PATH = re.compile(rf"(?:{_PART})(?:\.(?:{_PART}))*")

Value = str | int


class Group(NamedTuple):
    """The best hits whose field has this value, best first."""

    value: Value
    hits: list[Hit]


def to_path(field: str) -> tuple[str, ...]:
    """`source.url` as its keys; one that holds dots or blanks is in quotes. Raises `InvalidField`."""
    if not _PATH.fullmatch(field):
        raise InvalidField("group_by", f'{field!r} is no field of the metadata, such as lang, source.url or "a b".')
    return tuple(part.strip('"') for part in re.findall(_PART, field))


def group(ranking: Iterable[Hit], path: Sequence[str], limit: int, size: int) -> list[Group]:
    """The `limit` groups whose best hits come first, each with its first `size` hits.

    The field holds a text or a whole number; a hit with a list of them is in the group of each, one with anything else,
    or without the field, is in none.
    """
    groups: dict[Value, list[Hit]] = {}
    for hit in ranking:
        for value in dict.fromkeys(_values(hit.passage.metadata, path)):
            if value in groups or len(groups) < limit:
                of_value = groups.setdefault(value, [])
                if len(of_value) < size:
                    of_value.append(hit)
    return [Group(value, hits) for value, hits in groups.items()]


def _values(metadata: Any, path: Sequence[str]) -> Iterator[Value]:
    found = metadata
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return
        found = found[key]
    for value in found if isinstance(found, list) else [found]:
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield value
