"""One passage of a file: what it must be, and how a bad one is told."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from app.errors import BadInput

FIELDS = frozenset({"_id", "id", "text", "title", "metadata"})
Json = dict[str, Any]
Raw = TypeVar("Raw")


class BadLine(BadInput):
    """A line that is not a passage."""


OnBad = Callable[[BadLine], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A passage and the place it was read from."""

    where: str
    passage: Json

    @property
    def chars(self) -> int:
        return len(self.passage["text"]) + len(self.passage["title"])


def read_each(
    where: str, numbered: Iterator[tuple[int, Raw]], read: Callable[[Raw], Json], on_bad: OnBad
) -> Iterator[Line]:
    """Lines of what `read` makes; where it raises `ValueError`, `on_bad` hears of it by number."""
    for number, raw in numbered:
        try:
            yield Line(where=f"{where} {number}", passage=read(raw))
        except ValueError as error:
            on_bad(BadLine(f"{where} {number}: {error}"))


def to_passage(found: Json) -> Json:
    """`id` (or `_id`), `text`, and perhaps `title` and `metadata`, as the service takes them. Raises `ValueError`."""
    passage_id = found.get("_id", found.get("id"))
    if not isinstance(passage_id, str | int) or isinstance(passage_id, bool) or passage_id == "":
        raise ValueError("has no '_id' or 'id' (a string)")
    text, title, metadata = found.get("text"), found.get("title") or "", found.get("metadata") or {}
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the passage {passage_id!r} has no text")
    if not isinstance(title, str) or not isinstance(metadata, dict):
        raise ValueError(f"the passage {passage_id!r} needs a string as title and an object as metadata")
    passage = {"id": str(passage_id), "text": text, "title": title, "metadata": metadata}
    try:
        json.dumps(passage, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid UTF-8, or has half a surrogate pair") from error
    except TypeError as error:
        raise ValueError(f"the passage {passage_id!r} has what JSON cannot hold ({error})") from error
    return passage


def parse(text: str) -> Any:
    """Raises `ValueError` for what is not strict JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"has {constant}, which JSON has no number for")
