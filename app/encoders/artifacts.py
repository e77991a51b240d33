"""The artifact store: one folder per encoder, `name@version`, manifest written last, renamed into place.

A crash leaves either the whole artifact or a staging folder that the next start removes; it never leaves
half of one under its final name. An encoder that shares the base's architecture is kept as a delta.
"""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoders.digest import weights_ending
from app.encoders.files import fsync_tree
from app.encoders.overlay import EncoderFiles
from app.errors import AdiabatError, EncoderBroken

MANIFEST = "adiabat.json"
PROBES = "probes.npy"
BASE_KEY = "base@1"
STALE_STAGING_S = 24 * 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What `adiabat.json` says of an artifact."""

    digest: str
    base_digest: str | None
    parent_digest: str | None
    form: str  # "full" or "delta"
    dimension: int
    max_length: int
    query_prompt: str
    passage_prompt: str
    name: str = ""
    version: int = 0
    source: str = ""
    index_space: dict[str, Any] | None = None
    recipe: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    created_at: float = 0.0

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @staticmethod
    def read(folder: Path) -> "Manifest":
        try:
            fields = json.loads((folder / MANIFEST).read_text())
            return Manifest(**{key: fields[key] for key in Manifest.__slots__ if key in fields})
        except (OSError, ValueError, TypeError) as error:
            raise EncoderBroken(f"{folder.name}: its {MANIFEST} is missing or unreadable ({error}).") from error


class ArtifactStore:
    """Folders below `root`: `name@version/`, `.staging-…/`, `graphs/`, `weights/`, `datasets/`, `matrices/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.graphs = root / "graphs"
        self.weights = root / "weights"
        for folder in (root, self.graphs, self.weights):
            folder.mkdir(parents=True, exist_ok=True)

    def folder(self, key: str) -> Path:
        return self.root / key

    def files(self, key: str) -> EncoderFiles:
        """The effective files of an artifact: its own, over the base's where it is a delta."""
        folder = self.folder(key)
        manifest = Manifest.read(folder)
        base = EncoderFiles(self.folder(BASE_KEY), None) if manifest.form == "delta" else None
        return EncoderFiles(folder, base)

    def manifest(self, key: str) -> Manifest:
        return Manifest.read(self.folder(key))

    def probe_vectors(self, key: str) -> NDArray[np.float32]:
        try:
            return np.asarray(np.load(self.folder(key) / PROBES, allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError) as error:
            raise EncoderBroken(f"{key}: its recorded probe vectors are missing or damaged ({error}).") from error

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to build in; whatever is still there at the end of the block is removed."""
        folder = self.root / f".staging-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def place(self, staged: Path, key: str) -> None:
        """Make `staged` durable and visible as `key`, in this order: contents, then the name."""
        fsync_tree(staged)
        target = self.folder(key)
        if target.exists():  # left by a crash between rename and commit: no row names it
            shutil.rmtree(target)
        staged.rename(target)
        fsync_folder(self.root)

    def remove(self, key: str) -> None:
        """Unlink in one rename first, so that a crash never leaves half an artifact under its name.

        The engine's copy of the weights goes too; another encoder of the same weights makes it again.
        """
        self.forget_weights(key)
        doomed = self.root / f".staging-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        if self.folder(key).exists():
            self.folder(key).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def forget_weights(self, key: str) -> None:
        """Remove the engine's copy of the weights; it is made again where it is needed."""
        try:
            ending = weights_ending(self.files(key))
        except AdiabatError:  # a damaged artifact is being removed: nothing is known of its weights
            return
        for copy in self.weights.glob(f"*-{ending}"):
            shutil.rmtree(copy, ignore_errors=True)

    def set_aside(self, key: str) -> None:
        """Hide an artifact that no row names, for whoever finds that its registry was the wrong one."""
        lost = self.root / ".lost"
        lost.mkdir(exist_ok=True)
        self.folder(key).rename(lost / f"{key}-{uuid.uuid4().hex[:12]}")

    def keys(self) -> list[str]:
        return [path.name for path in self.root.iterdir() if "@" in path.name and not path.name.startswith(".")]

    def size_bytes(self, key: str) -> int:
        return sum(path.stat().st_size for path in self.folder(key).rglob("*") if path.is_file())

    def sweep_staging(self) -> None:
        """Remove what dead processes left half-built."""
        for folder in self.root.glob(".staging-*"):
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    host, pid, _ = folder.name.removeprefix(".staging-").rsplit("-", 2)
    if host != socket.gethostname():  # another container: its pids say nothing here
        return time.time() - folder.stat().st_mtime > STALE_STAGING_S
    # Our own id is a dead process's too: nothing is staged before the sweep, and in a container every start is id 1.
    return int(pid) == os.getpid() or not _alive(int(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, not what they lead to."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
