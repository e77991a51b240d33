"""`/keys`: make, list, revoke."""

import time
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as PathParam

from app.api.deps import PartsDep
from app.api.scopes import Scoped
from app.keys.making import make_key, public
from app.wire.common import Name
from app.wire.keys import KeyCreate, KeyList, KeyMade

router = APIRouter(prefix="/keys", tags=["keys"], route_class=Scoped)


@router.post("", response_model=KeyMade, status_code=201, response_model_exclude_none=True)
def create_key(body: KeyCreate, parts: PartsDep, response: Response) -> KeyMade:
    """Make a key. Its secret is in this answer and nowhere else: who loses it revokes the key and makes another.

    Where ADIABAT_API_KEY is not set the first key must be an admin's without an end, since from it on every call needs
    a key.
    """
    made = make_key(parts.registry.keys, body, needs_admin=parts.ring.needs_admin)
    parts.ring.changed()
    response.headers["Cache-Control"] = "no-store"
    return made


@router.get("", response_model=KeyList, response_model_exclude_none=True)
def list_keys(parts: PartsDep) -> KeyList:
    """By name, expired ones too. ADIABAT_API_KEY is not among them: it is no key of the registry."""
    now = time.time()
    found = parts.registry.keys.all()
    return KeyList(keys=[public(record, now, parts.ring.used_today(record, now)) for record in found])


@router.delete("/{name}", status_code=204)
def revoke_key(name: Annotated[Name, PathParam(examples=["shop"])], parts: PartsDep) -> Response:
    """It opens nothing any more, at once here and within a second in other processes; its sessions end with it.

    Refused for the last admin key where ADIABAT_API_KEY is not set: nobody could make another.
    """
    parts.registry.keys.revoke(name, needs_admin=parts.ring.needs_admin)
    parts.ring.changed()
    return Response(status_code=204)
