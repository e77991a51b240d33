"""How a passage lies in Qdrant, the same for both adapters.

point id   UUIDv5 of the external id below POINT_NAMESPACE
vector     named "dense", so that sparse vectors can join without a migration
payload    {"_adiabat": {"id", "title", "text", "content_hash", "payload_hash"}, "metadata": {…}}
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import orjson

from app.errors import InvalidField
from app.passages.store import Hashes, Passage, Point, StoredPassage, Vector

DENSE = "dense"
OURS = "_adiabat"
METADATA = "metadata"
HASH_KEYS = [f"{OURS}.id", f"{OURS}.content_hash", f"{OURS}.payload_hash"]

_PART = r'(?:[^\s."\[\]\\]+|"[^"\\]+")(?:\[\d*\])*'
_PATH = re.compile(rf"{_PART}(?:\.{_PART})*")

# How many candidates HNSW keeps while it searches and while it builds. Real questions are harder than random vectors:
# with the engine's defaults of 100 a search finds 97.7% of the true top 10 of MedQuAD, with these 99.5% (docs/LOG.md).
SEARCH_EF = 192
EF_CONSTRUCT = 200

# Never change it: every stored point's id depends on it.
POINT_NAMESPACE = UUID("6f0d3a52-7c1e-5b8e-9d43-2b1a7f0c5e91")


def search_ef(wanted: int) -> int:
    """HNSW's ef for a search that wants `wanted` hits: never fewer candidates than hits."""
    return max(SEARCH_EF, wanted)


def is_path(key: str) -> bool:
    """Whether a filter may name this in the metadata."""
    return _PATH.fullmatch(key) is not None


def point_id(external_id: str) -> UUID:
    return uuid5(POINT_NAMESPACE, external_id)


def payload_hash(passage: Passage) -> str:
    """Changes with title, text or metadata, whatever the order of keys; 32 hexadecimal digits.

    Raises InvalidField for metadata that is not JSON.
    """
    try:
        told = orjson.dumps([passage.title, passage.text, passage.metadata], option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InvalidField(f"metadata of passage {passage.id!r}", f"is not JSON ({error}).") from None
    return hashlib.blake2b(told, digest_size=16).hexdigest()


def to_payload(passage: Passage, content_hash: str) -> dict[str, Any]:
    ours = {
        "id": passage.id,
        "title": passage.title,
        "text": passage.text,
        "content_hash": content_hash,
        "payload_hash": payload_hash(passage),
    }
    return {OURS: ours, METADATA: passage.metadata}


def to_passage(payload: Any) -> Passage:
    ours = payload[OURS]
    return Passage(id=ours["id"], text=ours["text"], title=ours["title"], metadata=payload.get(METADATA) or {})


def to_stored(payload: Any, vectors: Any) -> StoredPassage:
    """From payload and named vectors as Qdrant returned them."""
    return StoredPassage(
        passage=to_passage(payload), content_hash=payload[OURS]["content_hash"], vector=to_vector(vectors)
    )


def to_hashes(payloads: Iterable[Any]) -> dict[str, Hashes]:
    ours = (payload[OURS] for payload in payloads)
    return {one["id"]: Hashes(one["content_hash"], one["payload_hash"]) for one in ours}


def to_cursor(cursor: str | None) -> UUID | None:
    """Raises InvalidField for a cursor that no page returned."""
    try:
        return None if cursor is None else UUID(cursor)
    except ValueError:
        raise InvalidField("cursor", f"{cursor!r} is none that a page of passages returned.") from None


def to_vector(vectors: Any) -> Vector | None:
    """The dense vector (dim,) of what Qdrant returned, None where none was asked for."""
    return np.asarray(vectors[DENSE], dtype=np.float32) if vectors else None


def in_order(stored: Iterable[StoredPassage], ids: Sequence[str]) -> list[StoredPassage]:
    """Qdrant returns points in its own order; callers get theirs."""
    by_id = {one.passage.id: one for one in stored}
    return [by_id[id] for id in dict.fromkeys(ids) if id in by_id]


def last_of_each(points: Sequence[Point], dimension: int) -> list[tuple[Point, Vector]]:
    """The points to write with their checked vectors; of a repeated id the last. Raises InvalidField."""
    checked = ((p, checked_vector(p.vector, dimension, f"vector of passage {p.passage.id!r}")) for p in points)
    return list({p.passage.id: (p, vector) for p, vector in checked}.values())


def checked_vector(vector: Vector, dimension: int, name: str = "vector") -> Vector:
    """As fp32 (dimension,). Raises InvalidField for another shape or a value that is not finite."""
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (dimension,):
        raise InvalidField(name, f"has shape {array.shape}, the collection's vectors have ({dimension},).")
    if not np.isfinite(array).all():
        raise InvalidField(name, "holds a value that is not finite (NaN or infinity).")
    return array
