"""What is taken over: points with a payload and a vector, and how a payload becomes a passage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.corpus.line import to_passage
from app.errors import InvalidField
from app.ingest import check_passage
from app.passages import Passage
from app.passages.store import Vector
from app.settings import Settings


class BadPoint(ValueError):
    """A point that makes no passage; its text says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Found:
    """A point as it lies in its source. `at` is its place there, `vector` (dim,) None where it has none."""

    at: str
    payload: Mapping[str, Any]
    vector: Vector | None


class Source(Protocol):
    """Any method may raise `Unavailable`. The order is the same each time."""

    @property
    def said(self) -> str:
        """Its name in a sentence."""

    @property
    def dimension(self) -> int: ...

    @property
    def by_cosine(self) -> bool:
        """Whether it is searched by the angle between vectors alone, whatever their lengths."""

    def count(self) -> int: ...

    def sample(self, ranks: Sequence[int]) -> list[Found]:
        """The points at these places of the order, which rise from 0."""

    def pages(self) -> Iterator[list[Found]]:
        """Every point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """Which fields of a payload are what; a dot leads into an object. Without `id` the point's own id is taken.

    `metadata` names an object; without it everything that is nothing else is metadata.
    """

    text: str = "text"
    title: str | None = None
    id: str | None = None
    metadata: str | None = None

    def passage(self, found: Found, settings: Settings) -> Passage:
        """Raises `BadPoint`."""
        told = {
            "id": found.at if self.id is None else value_at(found.payload, self.id),
            "text": value_at(found.payload, self.text),
            "title": None if self.title is None else value_at(found.payload, self.title),
            "metadata": self._rest(found.payload) if self.metadata is None else value_at(found.payload, self.metadata),
        }
        if not isinstance(told["text"], str):
            raise BadPoint(f"point {found.at} has no text in {self.text!r}")
        try:
            passage = Passage(**to_passage(told))
            check_passage(passage, settings)
        except (ValueError, InvalidField) as error:
            raise BadPoint(f"point {found.at}: {error}") from error
        return passage

    def other_texts(self, payload: Mapping[str, Any]) -> dict[str, str]:
        """Of the fields that are neither text nor title, those that hold one."""
        told = {name: value_at(payload, name) for name in field_names(payload) if name not in (self.text, self.title)}
        return {name: value for name, value in told.items() if isinstance(value, str) and value.strip()}

    def _rest(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        rest: dict[str, Any] = dict(payload)
        for name in (self.text, self.title, self.id):
            if name is not None:
                rest = _without(rest, name)
        return rest


def value_at(payload: Mapping[str, Any], name: str) -> Any:
    """Of the field `name`; None where there is none. A name that is there as it stands counts before a dotted one."""
    if name in payload:
        return payload[name]
    head, _, rest = name.partition(".")
    inner = payload.get(head)
    return value_at(inner, rest) if rest and isinstance(inner, Mapping) else None


def field_names(payload: Mapping[str, Any]) -> Iterator[str]:
    """All fields, those inside objects with dots."""
    for name, value in payload.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{name}.{inner}" for inner in field_names(value))
        else:
            yield name


def _without(payload: dict[str, Any], name: str) -> dict[str, Any]:
    if name in payload:
        return {key: value for key, value in payload.items() if key != name}
    head, _, rest = name.partition(".")
    inner = payload.get(head)
    if not rest or not isinstance(inner, dict):
        return payload
    left = _without(inner, rest)
    return {key: (left if key == head else value) for key, value in payload.items() if key != head or left}
