"""The pictures of an encoder's model card, as they lie beside it in the artifact store."""

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from app.api.deps import Parts, PartsDep
from app.api.scopes import Scoped
from app.encoders.overlay import card_files
from app.errors import NotFound
from app.registry import EncoderState

router = APIRouter(prefix="/console/cards", include_in_schema=False, route_class=Scoped)

PICTURES = (".png",)  # only what cannot carry a script


@router.get("/{key}")
def list_pictures(key: str, parts: PartsDep) -> dict[str, list[str]]:
    return {"pictures": sorted(_pictures(key, parts))}


@router.get("/{key}/{name:path}")
def read_picture(key: str, name: str, parts: PartsDep) -> Response:
    found = _pictures(key, parts).get(name)
    if found is None:
        raise NotFound(f"The card of {key} has no picture {name!r}.")
    return FileResponse(found, headers={"X-Content-Type-Options": "nosniff"})


def _pictures(key: str, parts: Parts) -> dict[str, str]:
    record = parts.registry.encoders.find(key)
    if record.state is EncoderState.DELETED:
        return {}
    files = card_files(parts.artifacts.files(record.key))
    return {name: str(path) for name, path in files.items() if path.suffix in PICTURES}
