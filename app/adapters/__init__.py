"""Adiabat in the shapes of other libraries, each in an extra of its name: they speak to a running service.

The service embeds queries with its active encoder, so none of them takes an embedding model.
"""

import weakref
from typing import Any

from app.client import AdiabatClient
from app.wire.passages import PassagePublic
from app.wire.search import HitPublic


def connected(owner: object, url: str, api_key: str | None) -> AdiabatClient:
    """A client that is closed when `owner` goes: these libraries close nothing themselves."""
    client = AdiabatClient(url, api_key)
    weakref.finalize(owner, client.close)
    return client


def metadata_of(hit: HitPublic | PassagePublic) -> dict[str, Any]:
    """The passage's metadata, with its title where it has one and the metadata has none of that name."""
    return {"title": hit.title, **hit.metadata} if hit.title else dict(hit.metadata)
