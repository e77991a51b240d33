"""The passage store: the port (`store`), its adapters on Qdrant Edge and a Qdrant server, filters."""

import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from app.passages.index_space import IndexSpace
from app.passages.store import Hashes, Hit, Passage, PassageStore, Point, StoredPassage, StoreInfo
from app.settings import Settings

# qdrant_client takes a second to import, and the low-priority child, which imports this package, needs none
# of it: what needs it is imported where it is called.
if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = [
    "Hashes",
    "Hit",
    "IndexSpace",
    "Passage",
    "PassageStore",
    "Point",
    "StoreInfo",
    "StoredPassage",
    "demanded",
    "described",
    "has_condition",
    "open_store",
    "parse_filter",
]


def parse_filter(obj: Mapping[str, Any] | None) -> "Filter | None":
    """Qdrant's filter JSON, read strictly. Raises UnsupportedFilter or InvalidField."""
    from app.passages import filters

    return filters.parse_filter(obj)


def has_condition(filter: "Filter") -> bool:
    """Whether there is anything that a passage could fail."""
    from app.passages import filters

    return filters.has_condition(filter)


def demanded(filter: "Filter") -> Iterator[tuple[str, str | int | bool]]:
    """Keys of the metadata with the one value that every hit must have there."""
    from app.passages import filters

    return filters.demanded(filter)


def described(settings: Settings) -> str:
    """Which passages these are, for services that must have the same. Raises `Unavailable`."""
    if settings.qdrant_url is None:
        where = f"{settings.data_dir.resolve()} on {socket.gethostname()}"
        return f"Qdrant Edge in {where}, which serves one process"
    from app.passages.qdrant_calls import client_of, collection_id
    from app.registry.instances import WITH_ID

    client = client_of(settings, settings.qdrant_url)
    try:
        found = collection_id(client, settings.collection)
    finally:
        client.close()
    return f"the Qdrant collection {settings.collection!r}" + (f"{WITH_ID}{found}" if found else "")


def open_store(settings: Settings, index_space: IndexSpace) -> PassageStore:
    """Edge below `settings.passages_dir`, or the server at `settings.qdrant_url`.

    Raises DataDirLocked, IndexSpaceMismatch or Unavailable.
    """
    if settings.qdrant_url is None:
        from app.passages.edge import EdgeStore

        return EdgeStore(
            settings.passages_dir,
            index_space,
            indexed_fields=settings.indexed_fields,
            index_after=settings.index_after,
        )
    from app.passages.qdrant import open_collection

    return open_collection(settings, settings.qdrant_url, index_space)
