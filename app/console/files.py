"""Scripts and styles, under an address that names their content: a browser keeps them for ever and has no old ones."""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Response

from app.errors import NotFound

KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(prefix="/console/static", include_in_schema=False)


@router.get("/{version}/{name}")
async def read_file(version: str, name: str) -> Response:
    """One folder for all, so that scripts name each other by `./name.js`; another version is one nobody should keep."""
    found = loaded().get(name)
    if found is None:
        raise NotFound(f"The console has no file {name!r}.")
    kind = next(kind for ending, kind in KINDS.items() if name.endswith(ending))
    headers = {"Cache-Control": FOR_EVER if version == content() else "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(found, media_type=kind, headers=headers)


@cache
def loaded() -> dict[str, bytes]:
    """By name; some 100 KB in all."""
    return {file.name: file.read_bytes() for file in _folder().iterdir() if file.name.endswith(tuple(KINDS))}


@cache
def content() -> str:
    """The version of all files together: they name each other."""
    digest = sha256()
    for name, held in sorted(loaded().items()):
        digest.update(name.encode() + b"\0" + held)
    return digest.hexdigest()[:12]


def _folder() -> Traversable:
    return files("app.console") / "static"
