"""Encoders on their way between this machine and the service: a folder to an archive, an archive to a folder."""

import io
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.archives import unpack
from app.cli.common import Bar
from app.errors import BadInput, SourceRefused

WANTED = (".json", ".txt", ".model", ".safetensors", ".md")
SAVED = "give a folder that SentenceTransformer(...).save(folder) wrote"


def pack_folder(folder: Path, archive: Path) -> Path:
    """Pack what an encoder needs of a sentence-transformers folder. Raises `BadInput` where it is none."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in WANTED]
    if not (folder / "modules.json").is_file():
        raise BadInput(f"{folder} has no modules.json: {SAVED}.")
    if not any(path.suffix == ".safetensors" for path in files):
        raise BadInput(f"{folder} has no .safetensors weights: {SAVED}.")
    with tarfile.open(archive, "w", dereference=True) as packed:
        for path in files:
            name = path.relative_to(folder)
            if not any(part.startswith(".") for part in name.parts):
                packed.add(path, str(name), recursive=False)
    return archive


def unpack_into(archive: Path, folder: Path) -> None:
    """Put the archive's content in place as `folder`, whole or not at all; it must not exist, or be empty."""
    content = archive.with_suffix("")
    content.mkdir()
    with archive.open("rb") as file:
        unpack(file, content, max_bytes=archive.stat().st_size, refused=SourceRefused)
    with suppress(FileNotFoundError):
        folder.rmdir()
    content.rename(folder)


class Watched(io.FileIO):
    """A file to read from that moves a bar along."""

    def __init__(self, path: Path, bar: Bar) -> None:
        super().__init__(path)
        self._bar = bar
        self._total = path.stat().st_size

    def read(self, size: int | None = -1) -> Any:
        content = super().read(-1 if size is None else size)
        self._bar.update(self.tell(), total=self._total)
        return content
