"""`/keys`: make, list, revoke."""

import time
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as PathParam

from app.api.deps import Parts, PartsDep
from app.api.scopes import Scoped
from app.errors import InvalidField
from app.keys import make_token
from app.keys.tokens import hashed
from app.registry import KeyRecord, NewKey, Scope
from app.wire.common import Name
from app.wire.keys import KeyCreate, KeyList, KeyMade, KeyPublic

router = APIRouter(prefix="/keys", tags=["keys"], route_class=Scoped)


@router.post("", response_model=KeyMade, status_code=201, response_model_exclude_none=True)
def create_key(body: KeyCreate, parts: PartsDep, response: Response) -> KeyMade:
    """Make a key. Its secret is in this answer and nowhere else: who loses it revokes the key and makes another.

    Where ADIABAT_API_KEY is not set the first key must be an admin's without an end, since from it on every call needs
    a key.
    """
    if body.burst is not None and body.rate_per_s is None:
        raise InvalidField("burst", "goes with rate_per_s: how many may come at once of those that come in a second.")
    if body.expires_at is not None and body.expires_at <= time.time():
        raise InvalidField("expires_at", "is over already; send a moment to come in seconds since 1970.")
    token = make_token()
    new = NewKey(
        name=body.name,
        id=token.id,
        hash=hashed(token.secret),
        scope=Scope(body.scope),
        rate_per_s=body.rate_per_s,
        burst=body.burst,
        daily=body.daily,
        expires_at=body.expires_at,
    )
    record = parts.registry.keys.make(new, needs_admin=parts.ring.needs_admin)
    parts.ring.changed()
    response.headers["Cache-Control"] = "no-store"
    return KeyMade(**_public(record, parts).model_dump(), key=str(token))


@router.get("", response_model=KeyList, response_model_exclude_none=True)
def list_keys(parts: PartsDep) -> KeyList:
    """By name, expired ones too. ADIABAT_API_KEY is not among them: it is no key of the registry."""
    return KeyList(keys=[_public(record, parts) for record in parts.registry.keys.all()])


@router.delete("/{name}", status_code=204)
def revoke_key(name: Annotated[Name, PathParam(examples=["shop"])], parts: PartsDep) -> Response:
    """It opens nothing any more, at once here and within a second in other processes; its sessions end with it.

    Refused for the last admin key where ADIABAT_API_KEY is not set: nobody could make another.
    """
    parts.registry.keys.revoke(name, needs_admin=parts.ring.needs_admin)
    parts.ring.changed()
    return Response(status_code=204)


def _public(record: KeyRecord, parts: Parts) -> KeyPublic:
    now = time.time()
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
        used_today=parts.ring.used_today(record, now),
    )
