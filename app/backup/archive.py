"""The file: a tar of what a data folder has to have, checksums last.

    backup.json             what it is of
    registry.db             the registry, in one piece
    artifacts/…             encoders and datasets that the registry names, and exported graphs
    passages/…              the store on Qdrant Edge
    SHA256SUMS              of all before it, as `sha256sum -c` reads it

Nothing of it is believed that its checksum does not agree with, and no name that is not one of these.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from app import __version__
from app.archives import CHUNK, Entry, looked_through
from app.errors import BadInput, Conflict, TooLarge
from app.registry.database import known_revisions
from app.tars import Member, Packed, file_member, packed

FORMAT = 1
ABOUT, SUMS = "backup.json", "SHA256SUMS"
REGISTRY, ARTIFACTS, PASSAGES = "registry.db", "artifacts", "passages"
MAX_FILES = 200_000
MAX_ABOUT_BYTES = 2**20
STORE = "qdrant-edge-py"
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")

OnBytes = Callable[[int, int], None]  # how many, of how many


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """`missing` are encoders and datasets that the registry named and the data folder had not."""

    format: int
    version: str
    schema: str
    store: str  # release of Qdrant Edge
    created_at: float
    encoder: str  # the active one
    generation: int
    encoders: int
    passages: int
    missing: list[str]

    @staticmethod
    def now(**said: Any) -> "About":
        return About(format=FORMAT, version=__version__, store=version(STORE), **said)

    def write(self, folder: Path) -> None:
        (folder / ABOUT).write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    def require_readable(self) -> None:
        """Raises `Conflict` for what a newer release wrote, naming both."""
        known = known_revisions()
        newer = [
            f"{what} {theirs}, this release ({__version__}) reads up to {ours}"
            for what, theirs, ours, is_newer in (
                ("format", self.format, FORMAT, self.format > FORMAT),
                ("schema revision", self.schema, known[0], self.schema not in known),
                ("Qdrant Edge", self.store, version(STORE), _numbers(self.store) > _numbers(version(STORE))),
            )
            if is_newer
        ]
        if newer:
            raise Conflict(
                f"Adiabat {self.version} wrote this backup: {'; '.join(newer)}. Restore it with that release."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What an archive says of itself, and its members by name with what their checksums must be."""

    about: About
    entries: Mapping[str, Entry]
    sums: Mapping[str, str]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries.values())

    def damaged(self, folder: Path | None = None, on_bytes: OnBytes = lambda _done, _total: None) -> Iterator[str]:
        """Reads all members, writes them below `folder` if given, and names each that is not as its checksum says."""
        done = 0
        for name, entry in self.entries.items():
            whole = hashlib.sha256()
            with _Sink(folder, name) as sink:
                for chunk in _chunks(entry):
                    whole.update(chunk)
                    sink.write(chunk)
                    done += len(chunk)
                    on_bytes(done, self.size)
            if whole.hexdigest() != self.sums[name]:
                yield name


def pack(folder: Path) -> Packed:
    """All files below `folder`, which nobody changes any more, and their checksums. Raises `TooLarge`."""
    sums: dict[str, str] = {}
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if len(paths) >= MAX_FILES:
        raise TooLarge(f"There are {len(paths)} files to back up, and an archive takes {MAX_FILES}: delete encoders.")
    names = sorted(paths, key=lambda name: (name != ABOUT, name))
    members = [_summed(file_member(name, paths[name]), sums) for name in names]
    length = sum(64 + 2 + len(name.encode()) + 1 for name in names)
    members.append(Member(name=SUMS, size=length, chunks=lambda: [_listed(sums)]))
    return packed(members, folder.stat().st_mtime)


def _summed(member: Member, sums: dict[str, str]) -> Member:
    def chunks() -> Iterator[bytes]:
        whole = hashlib.sha256()
        for chunk in member.chunks():
            whole.update(chunk)
            yield chunk
        sums[member.name] = whole.hexdigest()

    return Member(name=member.name, size=member.size, chunks=chunks)


def _listed(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


@contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """The backup in the file `path`, to be read within the block; only names and checksums are looked at yet.

    Raises `BadInput` where it is none, or damaged: the sentence names the member.
    """
    with path.open("rb") as file:
        yield from _read(file, path)


def _read(file: BinaryIO, path: Path) -> Iterator[Contents]:
    limit = max(path.stat().st_size, 1) * 1_000
    with looked_through(file, max_bytes=limit, max_entries=MAX_FILES, refused=BadInput, hint=_HINT) as found:
        entries = {entry.name: entry for entry in found}
        for needed in (ABOUT, SUMS):
            if needed not in entries:
                raise BadInput(f"{path} is no backup, or not all of one: it has no {needed}.")
        sums = _sums(entries.pop(SUMS), path)
        if odd := next((name for name in entries if not _belongs(name)), None):
            raise BadInput(f"{path} holds {odd[:80]!r}, which no backup has; nothing was read of it.")
        if differing := sorted(set(sums) ^ set(entries)):
            why = "is missing" if differing[0] in sums else f"has no checksum in {SUMS}"
            raise BadInput(f"{path} is damaged: {differing[0]} {why}.")
        yield Contents(about=_about(entries[ABOUT], sums[ABOUT], path), entries=entries, sums=sums)


_HINT = " with 'adiabat backup'"


def _belongs(name: str) -> bool:
    return name in (ABOUT, REGISTRY) or name.partition("/")[0] in (ARTIFACTS, PASSAGES)


def _sums(entry: Entry, path: Path) -> dict[str, str]:
    if entry.size > MAX_FILES * 600:
        raise BadInput(f"{path} is damaged: {SUMS} has {entry.size} bytes.")
    lines = b"".join(_chunks(entry)).decode(errors="replace").splitlines()
    found = [_SUM.fullmatch(line) for line in lines]
    if not all(found):
        raise BadInput(f"{path} is damaged: {SUMS} is no list of checksums.")
    return {line[2]: line[1] for line in found if line}


def _about(entry: Entry, expected: str, path: Path) -> About:
    content = b"".join(_chunks(entry)) if entry.size <= MAX_ABOUT_BYTES else b""
    if hashlib.sha256(content).hexdigest() != expected:
        raise BadInput(f"{path} is damaged: {ABOUT} is not as its checksum says.")
    try:
        said = orjson.loads(content)
        about = About(**{name: said.get(name) for name in About.__slots__})
        about.require_readable()
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no backup of this product: {ABOUT} cannot be read ({error}).") from error
    return about


def _chunks(entry: Entry) -> Iterable[bytes]:
    with entry.open() as source:
        while chunk := source.read(CHUNK):
            yield chunk


def _numbers(release: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", release)]


class _Sink:
    """A file below a folder, or nothing."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / name
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_Sink":
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        return self

    def write(self, chunk: bytes) -> None:
        if self._file is not None:
            self._file.write(chunk)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
