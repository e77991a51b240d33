"""The artifact store: one folder per encoder, `name@version`, manifest written last, renamed into place.

A crash leaves either the whole artifact or a staging folder that the next start removes; it never leaves
half of one under its final name. An encoder that shares the base's architecture is kept as a delta.

What services and trainers with folders of their own must share goes through here; in one folder there is nothing to do
for it. `app.encoders.shared_artifacts` keeps it in a bucket.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoders.digest import weights_ending
from app.encoders.files import fsync_tree
from app.encoders.graph import table_file
from app.encoders.half_made import half_made, sweep
from app.encoders.overlay import EncoderFiles
from app.errors import AdiabatError, EncoderBroken

MANIFEST = "adiabat.json"
PROBES = "probes.npy"
BASE_KEY = "base@1"
# What has a name where it is shared.
ENCODERS, DATASETS, JOBS = "encoders", "datasets", "jobs"
TRAINING_SET, CHECKPOINTS = "training-set", "checkpoints"


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

    shared = False  # whether others have folders of their own, and this one holds copies

    def __init__(self, root: Path) -> None:
        self.root = root
        self.graphs = root / "graphs"
        self.weights = root / "weights"
        self.datasets = root / "datasets"
        for folder in (root, self.graphs, self.weights, self.datasets):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def where(self) -> str:
        """For people."""
        return str(self.root)

    def has(self, key: str) -> bool:
        return (self.root / key).exists()

    def folder(self, key: str) -> Path:
        return self.root / key

    def renew(self, key: str) -> bool:  # noqa: ARG002  # there is no other copy
        """Take a copy that is not what was registered away, so that it is brought again; False where it is no copy."""
        return False

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
        folder = half_made(self.root, "staging")
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def placing(self, staged: Path) -> Iterator[Callable[[str], None]]:
        """Within it `place(key)`, which is quick, makes `staged` visible; its manifest is written meanwhile."""
        yield lambda key: self.place(staged, key)

    def place(self, staged: Path, key: str) -> None:
        """Make `staged` durable and visible as `key`, in this order: contents, then the name."""
        fsync_tree(staged)
        target = self.root / key
        if target.exists():  # left by a crash between rename and commit: no row names it
            shutil.rmtree(target)
        staged.rename(target)
        fsync_folder(self.root)

    def remove(self, key: str) -> None:
        """Unlink in one rename first, so that a crash never leaves half an artifact under its name.

        The engine's copy of the weights goes too; another encoder of the same weights makes it again.
        """
        if not (self.root / key).exists():
            return
        self.forget_weights(key)
        with self.staging() as doomed:
            (self.root / key).rename(doomed / key)

    def forget_weights(self, key: str) -> None:
        """Remove the engine's copy of the weights; it is made again where it is needed."""
        try:
            files = self.files(key)
            ending = weights_ending(files)
        except AdiabatError:  # a damaged artifact is being removed: nothing is known of its weights
            return
        for copy in self.weights.glob(f"*-{ending}"):
            shutil.rmtree(copy, ignore_errors=True)
        for name, digest in files.tensor_hashes.items():
            if key != BASE_KEY and not files.is_shared(name):  # the base's is every encoder's, and compared when read
                table_file(self.weights, digest).unlink(missing_ok=True)

    def set_aside(self, key: str) -> None:
        """Hide an artifact that no row names, for whoever finds that its registry was the wrong one."""
        lost = self.root / ".lost"
        lost.mkdir(exist_ok=True)
        (self.root / key).rename(lost / f"{key}-{uuid.uuid4().hex[:12]}")

    def keys(self) -> list[str]:
        return [path.name for path in self.root.iterdir() if "@" in path.name and not path.name.startswith(".")]

    def dataset(self, content: str) -> Path:
        """The folder of the content with this digest, whether it is there or not."""
        return self.datasets / content.removeprefix("sha256:")

    @contextmanager
    def keeping(self, staged: Path, content: str) -> Iterator[Callable[[], None]]:
        """Within it the call that is given, which is quick, keeps the dataset in `staged` as this content.

        Durable from there on; the same content is kept once.
        """
        fsync_tree(staged)
        yield lambda: self._keep(staged, content)

    def _keep(self, staged: Path, content: str) -> None:
        if not (folder := self.datasets / content.removeprefix("sha256:")).exists():
            shutil.move(staged, folder)
        fsync_folder(self.datasets)  # a record must not outlive its content

    def remove_dataset(self, content: str) -> None:
        shutil.rmtree(self.datasets / content.removeprefix("sha256:"), ignore_errors=True)

    def share(self, name: str, folder: Path, globs: Sequence[str] = ("**/*",)) -> None:
        """Let others obtain the files of `folder` under `name`, in place of those that were shared before."""

    def obtain(self, name: str, folder: Path) -> None:
        """Bring what was shared under `name` into `folder`. Nothing happens where there is nothing."""

    def withdraw(self, name: str, *, damaged: bool = False) -> None:
        """Whatever was shared under `name` is not needed any more. Another registry's stays, unless it is `damaged`."""

    def sweep_half_made(self) -> None:
        """Remove what dead processes left half made."""
        for pattern in (".staging-*", "graphs/.*", "weights/.*", "weights/*/.*"):
            sweep(self.root.glob(pattern))


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, not what they lead to."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
