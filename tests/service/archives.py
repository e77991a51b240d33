"""Encoders as archives, sent as a client without any library of ours would."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import Service

FORMATS = ("tar", "tar.gz", "zip")


def packed(folder: Path, form: str = "tar", top: str = "") -> bytes:
    """The folder's files, below a folder `top` if that is given."""
    buffer = io.BytesIO()
    files = {str(Path(top) / path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in files.items():
                archive.write(path, name)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if form == "tar.gz" else "w") as archive:
            for name, path in files.items():
                archive.add(path, name)
    return buffer.getvalue()


def upload(service: Service, content: bytes, key: str | None = None, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{service.url}/encoders",
        data={"name": "bees"} | fields,
        files={"archive": ("encoder.bin", content)},
        headers={"Idempotency-Key": key} if key else {},
        trust_env=False,
        timeout=60,
    )


def leftovers(service: Service) -> set[str]:
    """Artifacts and half-built ones."""
    root = service.settings.artifacts_dir
    return {path.name for path in root.iterdir() if "@" in path.name or "staging" in path.name}
