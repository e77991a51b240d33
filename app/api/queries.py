"""What several routes ask of a query and of a filter in the address."""

from typing import Any

import orjson

from app.errors import InvalidField
from app.ingest import check_unicode
from app.settings import Settings

MAX_SEQUENCE = 2**31 - 1  # of a column in PostgreSQL
RESERVED = {"base": "the passage encoder", "active": "whatever encoder is active, in /v1"}


def check_query(field: str, text: str, settings: Settings) -> None:
    """Raises `InvalidField` naming `field`."""
    limit = settings.max_query_chars
    if not text.strip():
        raise InvalidField(field, "is empty; send the words to search for.")
    if len(text) > limit:
        raise InvalidField(field, f"has {len(text)} characters, the limit is {limit} (ADIABAT_MAX_QUERY_CHARS).")
    check_unicode(field, text)


def filter_parameter(given: str | None) -> dict[str, Any] | None:
    """Qdrant's filter JSON from the address. Raises `InvalidField`."""
    if given is None:
        return None
    try:
        found = orjson.loads(given)
    except ValueError as error:
        raise InvalidField("filter", f"is not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InvalidField("filter", 'is not an object such as {"must": [{"key": "lang", "match": {"value": "de"}}]}.')
    return found


def sequence_cursor(cursor: str | None) -> int | None:
    """The sequence that a page ended with. Raises `InvalidField`."""
    if cursor is None:
        return None
    if not cursor.isdecimal() or len(cursor) > len(str(MAX_SEQUENCE)) or int(cursor) > MAX_SEQUENCE:
        raise InvalidField("cursor", "is not the next_cursor of an answer; begin again without it.")
    return int(cursor)


def check_new_name(name: str) -> None:
    """Raises `InvalidField` for names that mean something already."""
    if name in RESERVED:
        raise InvalidField("name", f"{name!r} means {RESERVED[name]}; choose another.")
