"""What fixes the meaning of the stored vectors: only vectors of equal index spaces can be compared.

Knows no store: the adapters record an `IndexSpace` beside their vectors and compare it when they open.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from app.errors import IndexSpaceMismatch

Distance = Literal["cosine", "dot"]

_WORDS = {
    "passage_encoder_digest": "passage encoder",
    "dimension": "dimension",
    "distance": "distance",
    "normalized": "normalisation",
    "passage_prompt": "passage prompt",
    "max_length": "passage max length",
    "text_template": "text template",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSpace:
    """What the passage encoder made of a passage, and how. `max_length` is in tokens."""

    passage_encoder_digest: str
    dimension: int
    distance: Distance = "cosine"
    normalized: bool = True
    passage_prompt: str = ""
    max_length: int = 256
    text_template: str = "{title}\n{text}"

    def render(self, title: str, text: str) -> str:
        """The text that is embedded (before the passage prompt): the text alone where there is no title."""
        if not title:
            return text
        values = {"title": title, "text": text}
        # One pass, so that a title which happens to contain "{text}" stays as it is.
        return re.sub(r"\{(title|text)\}", lambda found: values[found[1]], self.text_template)

    def differences(self, other: "IndexSpace") -> list[str]:
        """In words, each field in which `other` (asked for) differs from this one (stored)."""
        return [
            f"{_WORDS[f.name]} (stored {getattr(self, f.name)!r}, asked for {getattr(other, f.name)!r})"
            for f in fields(self)
            if getattr(self, f.name) != getattr(other, f.name)
        ]

    def require(self, other: "IndexSpace") -> None:
        """Raises IndexSpaceMismatch, naming each difference, unless `other` equals this stored one."""
        if differing := self.differences(other):
            raise IndexSpaceMismatch(
                f"The collection was embedded in another index space; it differs in {'; '.join(differing)}. "
                "Open it with the passage encoder that embedded it, or ingest into an empty collection.",
                differences=differing,
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "IndexSpace":
        """Raises IndexSpaceMismatch if the record is not one that this version of the product wrote."""
        try:
            return cls(**record)
        except TypeError as error:
            raise IndexSpaceMismatch(
                f"The collection's record of its index space cannot be read ({error}); "
                "it was written by another version. Use that version, or ingest into an empty collection."
            ) from error
