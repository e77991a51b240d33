"""Passages in: what changed is embedded, what only has new metadata is rewritten, the rest is left alone."""

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.encoders.lanes import PassageLanes
from app.errors import InvalidField
from app.passages import IndexSpace, Passage, PassageStore, Point
from app.passages.payload import payload_hash
from app.settings import Settings
from app.spans import EMBED_PASSAGES, STORE_PASSAGES, span


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingested:
    embedded: int  # new, or with a new text or title
    metadata_updated: int
    unchanged: int


class Ingest:
    """Upserts passages into `store`; `lanes` embed them."""

    def __init__(self, store: PassageStore, lanes: PassageLanes, settings: Settings) -> None:
        self._store = store
        self._lanes = lanes
        self._settings = settings
        self._writing = threading.Lock()

    def upsert(self, passages: Sequence[Passage], *, durable: bool = False) -> Ingested:
        """Raises `InvalidField` naming the passage and the field; nothing is written then."""
        seen: set[str] = set()
        for number, passage in enumerate(passages):
            at = f"passages[{number}]."
            if passage.id in seen:
                raise InvalidField(f"{at}id", f"{passage.id!r} is there twice; send each id once.")
            seen.add(passage.id)
            self.check(passage, at)
        done = self.write(passages)
        if durable:
            self.flush()
        return done

    def check(self, passage: Passage, at: str = "") -> None:
        """Raises `InvalidField` naming the field, after `at`."""
        check_passage(passage, self._settings, at)

    def flush(self) -> None:
        """Returns when power loss can undo nothing that was written before."""
        self._store.flush()

    def write(self, passages: Sequence[Passage]) -> Ingested:
        """Passages that `check` let through, each id once."""
        stored = self._store.content_hashes([passage.id for passage in passages])
        hashes = {passage.id: content_hash(passage, self._store.index_space) for passage in passages}
        changed, moved = [], []
        for passage in passages:
            before = stored.get(passage.id)
            if before is None or before.content != hashes[passage.id]:
                changed.append(passage)
            elif before.payload != payload_hash(passage):
                moved.append((passage, hashes[passage.id]))
        points = self._embed(changed, hashes)
        with self._writing:
            if points:
                self._upsert(points)
            # Since the hashes were read somebody may have written another text or deleted the passage: metadata
            # alone over those would leave an old text's hash on a new text's vector.
            now = self._store.content_hashes([passage.id for passage, _ in moved])
            still = [(p, h) for p, h in moved if p.id in now and now[p.id].content == h]
            if still:
                self._store.set_metadata(still)
            overtaken = [passage for passage, _ in moved if passage.id not in {p.id for p, _ in still}]
            if overtaken:
                self._upsert(self._embed(overtaken, hashes))
        return Ingested(
            embedded=len(changed) + len(overtaken),
            metadata_updated=len(still),
            unchanged=len(passages) - len(changed) - len(moved),
        )

    def _upsert(self, points: Sequence[Point]) -> None:
        with span(STORE_PASSAGES, {"adiabat.passages": len(points)}):
            self._store.upsert(points)

    def _embed(self, passages: Sequence[Passage], hashes: Mapping[str, str]) -> list[Point]:
        if not passages:
            return []
        space = self._store.index_space
        with span(EMBED_PASSAGES, {"adiabat.texts": len(passages)}):
            vectors = self._lanes.embed([space.render(passage.title, passage.text) for passage in passages])
        return [
            Point(passage=passage, content_hash=hashes[passage.id], vector=vector)
            for passage, vector in zip(passages, vectors, strict=True)
        ]


def check_passage(passage: Passage, settings: Settings, at: str = "") -> None:
    """Raise `InvalidField` naming the field, after `at`, unless the passage is one that the service takes."""
    if not passage.text.strip():
        raise InvalidField(f"{at}text", "is empty; a passage needs text to be found by.")
    for name, text in (("text", passage.text), ("title", passage.title)):
        if len(text) > settings.max_text_chars:
            raise InvalidField(
                f"{at}{name}",
                f"has {len(text)} characters, the limit is {settings.max_text_chars} "
                "(ADIABAT_MAX_TEXT_CHARS); cut it into several passages.",
            )
        check_unicode(f"{at}{name}", text)
    check_unicode(f"{at}id", passage.id)
    check_metadata(f"{at}metadata", passage.metadata, settings)


def content_hash(passage: Passage, space: IndexSpace) -> str:
    """Changes with all that went into the passage's vector; 64 hexadecimal digits."""
    parts = [passage.title, passage.text, space.text_template, space.passage_prompt, space.passage_encoder_digest]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def check_unicode(where: str, text: str) -> None:
    """Raise `InvalidField` where `text` has half a surrogate pair: it could never be sent back as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidField(
            where, f"has a lone surrogate at character {error.start}, which is not valid Unicode."
        ) from error


def check_metadata(where: str, metadata: dict[str, Any], settings: Settings) -> None:
    """Raise `InvalidField` unless `metadata` is plain JSON within the limits on depth and size."""
    _check_value(where, metadata, settings.max_metadata_depth)
    if (size := len(orjson.dumps(metadata))) > settings.max_metadata_bytes:
        raise InvalidField(
            where,
            f"is {size} bytes, the limit is {settings.max_metadata_bytes} (ADIABAT_MAX_METADATA_BYTES).",
        )


def _check_value(where: str, value: Any, depth: int) -> None:
    if depth < 0:
        raise InvalidField(where, "is nested too deep (ADIABAT_MAX_METADATA_DEPTH).")
    if isinstance(value, dict):
        for key, item in value.items():
            check_unicode(f"{where} key", key)
            _check_value(f"{where}.{key}", item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(where, item, depth - 1)
    elif isinstance(value, str):
        check_unicode(where, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidField(where, f"is {value}, which JSON has no number for.")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidField(where, f"is {value}, which does not fit into 64 bits.")
