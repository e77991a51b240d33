"""A new key, whoever makes it: over HTTP, or in the data folder on the service's own machine."""

import time

from app.errors import InvalidField
from app.keys.tokens import hashed, make_token
from app.registry.keys import KeyRecord, Keys, NewKey, Scope
from app.wire.keys import KeyCreate, KeyMade, KeyPublic


def make_key(keys: Keys, wanted: KeyCreate, *, needs_admin: bool) -> KeyMade:
    """Raises `InvalidField` and what `Keys.make` raises."""
    if wanted.burst is not None and wanted.rate_per_s is None:
        raise InvalidField("burst", "goes with rate_per_s: how many may come at once of those that come in a second.")
    if wanted.expires_at is not None and wanted.expires_at <= time.time():
        raise InvalidField("expires_at", "is over already; send a moment to come, in seconds since 1970.")
    token = make_token()
    said = wanted.model_dump() | {"scope": Scope(wanted.scope), "id": token.id, "hash": hashed(token.secret)}
    record = keys.make(NewKey(**said), needs_admin=needs_admin)
    return KeyMade(**public(record, record.created_at, 0).model_dump(), key=str(token))


def public(record: KeyRecord, now: float, used_today: int) -> KeyPublic:
    return KeyPublic(
        name=record.name,
        scope=record.scope,
        rate_per_s=record.rate_per_s,
        burst=record.burst,
        daily=record.daily,
        created_at=record.created_at,
        expires_at=record.expires_at,
        expired=record.expired(now),
        used_at=record.used_at,
        used_today=used_today,
    )
