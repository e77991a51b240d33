"""Matching booleans on Edge 0.9.0, whose Python binding takes `MatchValue(True)` for the integer 1.

So the Edge adapter writes the paths of all true and all false values into our part of the payload, as strings:
{"done": true, "parts": [{"open": false}]} gives `_adiabat.true: ["done"]`, `_adiabat.false: ["parts[].open"]`.
A match of a boolean asks for the path.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import UnsupportedFilter
from app.passages.payload import METADATA, OURS

_PART = re.compile(r'(?:"([^"]+)"|([^."\[\]]+))((?:\[\d*\])*)\.?')
_SEPARATOR = "\x1f"  # not ".", which may stand in a key


def marks(metadata: Mapping[str, Any]) -> dict[str, list[str]]:
    """What to add to our part of the payload; empty where there are no booleans."""
    found: dict[str, list[str]] = {}
    for path, value in _walk(metadata, ()):
        found.setdefault(_field(value), []).append(_SEPARATOR.join(path))
    return found


def condition(key: str, value: bool) -> tuple[str, str]:
    """The payload key and the string to match in place of the boolean. Raises UnsupportedFilter."""
    if not key.startswith(METADATA + "."):
        raise UnsupportedFilter(f"Qdrant Edge cannot match true or false inside nested (key {key!r}).")
    found = _PART.findall(key.removeprefix(METADATA + "."))
    parts = [(quoted or plain, index) for quoted, plain, index in found]
    if any(index not in ("", "[]") for _, index in parts):
        raise UnsupportedFilter(f"Qdrant Edge cannot match true or false by list index (key {key!r}).")
    # A list's own elements are found by the key with and without [].
    path = [*(name + index for name, index in parts[:-1]), parts[-1][0]]
    return f"{OURS}.{_field(value)}", _SEPARATOR.join(path)


def _field(value: bool) -> str:
    return "true" if value else "false"


def _walk(node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bool]]:
    for key, value in node.items():
        if isinstance(value, bool):
            yield (*path, key), value
        elif isinstance(value, Mapping):
            yield from _walk(value, (*path, key))
        elif isinstance(value, list):
            for element in value:
                if isinstance(element, bool):
                    yield (*path, key), element
                elif isinstance(element, Mapping):
                    yield from _walk(element, (*path, key + "[]"))
