"""Where encoders may be read from: an allow-list of folders, archives, the hub if enabled, what jobs made."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.archives import unpack
from app.encoders.artifacts import ArtifactStore
from app.encoders.hub import download
from app.errors import Conflict, SourceRefused, TooLarge
from app.hub import check_enabled
from app.registry import EncoderState, Registry

MAX_ENTRIES = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A folder to read an encoder from; `base` is what it lies over where it is a delta."""

    folder: Path
    base: Path | None = None
    said: str


def from_path(path: str, allowed: Sequence[Path]) -> Source:
    """A folder below one of `allowed`. Raises `SourceRefused`."""
    return Source(folder=check_source(path, allowed), said=path)


def from_job(job_id: str, registry: Registry, artifacts: ArtifactStore) -> Source:
    """What a tuning job made. Raises `JobNotFound`, and `Conflict` where there is nothing."""
    job = registry.jobs.get(job_id)
    if job.encoder_id is None:
        raise Conflict(f"The job {job.id} is {job.status} and has made no encoder.")
    record = registry.encoders.by_id(job.encoder_id)
    if record.state is EncoderState.DELETED:
        raise Conflict(f"What the job {job.id} made, {record.key}, was deleted.")
    files = artifacts.files(record.key)
    return Source(folder=files.own, base=files.base.own if files.base else None, said=f"job {job.id}")


def from_hub(name: str, revision: str | None, *, enabled: bool, max_bytes: int) -> Source:
    """A snapshot of the model hub. Raises `SourceRefused`, `TooLarge`, `Unavailable` where the hub does not answer."""
    check_enabled(enabled, name)
    folder = download(name, revision, max_bytes)
    return Source(folder=folder, said=f"hub {name}@{folder.name}")  # a snapshot's folder is named by its commit


@contextmanager
def from_archive(file: BinaryIO, artifacts: ArtifactStore, max_bytes: int) -> Iterator[Source]:
    """An uploaded archive, unpacked until the block ends. Raises `SourceRefused`, `TooLarge`."""
    with artifacts.staging() as folder:
        unpack(file, folder, max_bytes=max_bytes, refused=SourceRefused)
        yield Source(folder=folder, said="uploaded archive")


def check_source(path: str, allowed: Sequence[Path]) -> Path:
    """The resolved folder, if it lies in one of `allowed`; a relative path is looked for there. Raises `SourceRefused`.

    Links are followed first: what counts is where a path leads, not how it is written.
    """
    if "\0" in path or len(path) > 4096:
        raise SourceRefused("The path is not one that a file system has.")
    # A relative path is one below an allowed folder: who registers need not know where the server keeps them.
    places = [folder / path for folder in allowed] or [Path("/", path)]
    resolved = next((place for place in places if place.is_dir()), places[0]).resolve()
    if not any(resolved.is_relative_to(folder.resolve()) for folder in allowed):
        named = ", ".join(str(folder) for folder in allowed) or "none"
        raise SourceRefused(
            f"{path!r} lies outside the folders that encoders may be read from ({named}); "
            "put it there, or name its folder in ADIABAT_SOURCE_DIRS."
        )
    if not resolved.is_dir():
        raise SourceRefused(f"{path!r} is not a folder.")
    _check_inside(resolved, [folder.resolve() for folder in allowed])
    return resolved


def _check_inside(folder: Path, allowed: Sequence[Path]) -> None:
    """Only files and folders, none of them a link that leads out, and not so many that looking takes for ever."""
    for count, inside in enumerate(folder.rglob("*"), 1):
        if count > MAX_ENTRIES:
            raise TooLarge(f"{folder} holds over {MAX_ENTRIES} files; name the encoder's own folder.")
        if inside.is_symlink() and not any(inside.resolve().is_relative_to(place) for place in allowed):
            raise SourceRefused(f"{inside} is a link out of the allowed folders; put the file itself there.")
        if not inside.is_file() and not inside.is_dir():
            raise SourceRefused(f"{inside} is neither a file nor a folder; an encoder has nothing else.")
