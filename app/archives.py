"""Archives that strangers made: zip, tar and tar.gz, looked through under limits before a byte is unpacked.

What is looked through is all there is: regular files with plain names inside one folder. Everything else (links,
devices, names that lead out, a name twice, more than the limits) refuses the whole archive.
"""

import gzip
import io
import lzma
import os
import shutil
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from app.errors import AdiabatError, TooLarge

MAX_RATIO = 200
MAX_ENTRIES = 1_000
MAX_NAME_CHARS = 512
MAX_PART_BYTES = 255  # what a file system takes
MAX_DEPTH = 8
MAX_HEADER_BYTES = 8 * 2**20  # of all members of a tar together, or where more may come:
HEADER_BYTES = 2**10  # of each
CHUNK = 2**20
# Names of devices where Windows is; an encoder goes from machine to machine.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others take as much memory as the entry asks for

_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    LookupError,  # an entry without a name
    struct.error,
    OverflowError,
    NotImplementedError,  # a compression that the library has not
    RuntimeError,  # an encrypted entry
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file; `name` is relative, without the one top folder that packing a folder adds."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    max_bytes: int
    max_entries: int

    @property
    def header_bytes(self) -> int:
        return max(MAX_HEADER_BYTES, self.max_entries * HEADER_BYTES)

    def check(self, count: int, total: int, packed: int) -> None:
        """Raises `TooLarge` for so many entries, or for so many bytes in an archive of `packed`."""
        if count > self.max_entries:
            raise TooLarge(f"The archive has over {self.max_entries} entries; pack only the files that are needed.")
        if total > self.max_bytes or total > MAX_RATIO * packed:
            raise TooLarge(
                f"The archive unpacks to {total} bytes or more from {packed}; the limit is {self.max_bytes} bytes "
                f"(ADIABAT_MAX_ARCHIVE_BYTES) and {MAX_RATIO} times its packed size."
            )


def unpack(
    file: BinaryIO,
    folder: Path,
    *,
    max_bytes: int,
    refused: type[AdiabatError],
    choose: Callable[[list[Entry]], list[Entry]] = list,
    hint: str = "",
) -> None:
    """Write the files of the archive in `file` (seekable) that `choose` picks below `folder`.

    `hint` is said besides of what is no archive at all.

    Raises `refused` for an archive that is damaged or unsafe, `TooLarge` for one over the limits; nothing is
    written before all entries were looked at, but what was written when damage shows up is left to the caller.
    """
    with looked_through(file, max_bytes=max_bytes, refused=refused, hint=hint) as entries:
        for entry in choose(_without_top(entries)):
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)


@contextmanager
def looked_through(
    file: BinaryIO,
    *,
    max_bytes: int,
    max_entries: int = MAX_ENTRIES,
    refused: type[AdiabatError],
    hint: str = "",
) -> Iterator[list[Entry]]:
    """All entries of the archive in `file` (seekable), none twice, to be read within the block.

    Raises as `unpack` does, for damage that shows up while they are read too.
    """
    limits = Limits(max_bytes=max_bytes, max_entries=max_entries)
    with ExitStack() as stack:
        try:
            entries = _within_limits(_entries(file, stack, refused, limits), _length(file), limits)
            yield _distinct(entries, refused)
        except (*_BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's: bzip2 tells damage without one
                raise
            raise refused(
                f"The archive cannot be read ({str(error) or type(error).__name__}): it is damaged, encrypted, or "
                f"neither zip, tar nor tar.gz. Pack it again{hint}."
            ) from error


def _entries(file: BinaryIO, stack: ExitStack, refused: type[AdiabatError], limits: Limits) -> Iterator[Entry]:
    file.seek(0)
    magic = file.read(2)
    file.seek(0)
    if magic == b"PK":
        found = _zipped(file, stack, refused, limits)
    else:
        found = _tarred(file, stack, refused, limits, gzipped=magic == b"\x1f\x8b")
    for entry in found:
        path = _plain(entry.name, refused)
        if "__MACOSX" not in path.parts and not path.name.startswith("._") and path.name != ".DS_Store":
            yield replace(entry, name=str(path))


def _zipped(file: BinaryIO, stack: ExitStack, refused: type[AdiabatError], limits: Limits) -> Iterator[Entry]:
    # The library reads the whole directory into memory: count its entries first, each begins with these bytes.
    limits.check(_count(file, b"PK\x01\x02"), 0, 0)
    archive = stack.enter_context(zipfile.ZipFile(file))
    for info in archive.infolist():
        kind = (info.external_attr >> 16) & 0o170000
        if kind not in (0, 0o100000, 0o040000):
            raise refused(f"The archive entry {info.filename!r} is a link or a device; pack the files themselves.")
        if info.compress_type not in _METHODS:
            raise NotImplementedError(f"{info.filename[:80]!r} is neither stored nor deflated")
        if not info.is_dir():
            yield Entry(name=info.filename, size=info.file_size, open=partial(archive.open, info))


def _tarred(
    file: BinaryIO, stack: ExitStack, refused: type[AdiabatError], limits: Limits, *, gzipped: bool
) -> Iterator[Entry]:
    source = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb")) if gzipped else file
    careful = _Careful(source, limits.header_bytes)
    archive = stack.enter_context(tarfile.TarFile(fileobj=careful))
    for count, member in enumerate(archive, 1):
        limits.check(count, 0, 0)  # folders count too
        member.pax_headers = {}  # read by now; each holds the global ones again
        if not (member.isreg() or member.isdir()) or member.issparse() or member.size < 0:
            raise refused(f"The archive entry {member.name!r} is no plain file; pack the files themselves.")
        if member.isreg():
            yield Entry(name=member.name, size=member.size, open=partial(_member, archive, member))
    careful.seek(archive.offset)
    if careful.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # the library takes a damaged header for the end
        raise tarfile.ReadError("it does not end where it should")
    careful.left = None  # what is read from here on is the files


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(member)
    if found is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    return found


class _Careful(io.RawIOBase):
    """What tarfile reads from: neither one header that claims gigabytes nor many large ones are read into memory."""

    def __init__(self, source: BinaryIO | gzip.GzipFile, most: int) -> None:
        self._source = source
        self._most = most
        self.left: int | None = most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2 * CHUNK:
            raise tarfile.ReadError("a header is larger than any header is")
        content = self._source.read(size)
        if self.left is not None:
            self.left -= len(content)
            if self.left < 0:
                raise tarfile.ReadError(f"its headers are over {self._most} bytes together")
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def seekable(self) -> bool:
        return True


def _plain(name: str, refused: type[AdiabatError]) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise refused(f"The archive entry {name!r} points outside its folder; nothing was unpacked.")
    long = len(name) > MAX_NAME_CHARS or any(len(os.fsencode(part)) > MAX_PART_BYTES for part in path.parts)
    if long or not 1 <= len(path.parts) <= MAX_DEPTH or any(_odd(part) for part in path.parts):
        raise refused(f"The archive entry {name[:80]!r} has a name that no file here can have; nothing was unpacked.")
    return path


def _odd(part: str) -> bool:
    """Whether the name cannot be everywhere, or does not look like what it is: controls, turned text, devices."""
    kinds = {unicodedata.category(letter) for letter in part}
    return bool(kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}) or part.split(".")[0].strip().casefold() in _DEVICES


def _within_limits(entries: Iterator[Entry], packed: int, limits: Limits) -> list[Entry]:
    """All of them; stops at the first that is over, before anything behind it is read."""
    found, total = [], 0
    for entry in entries:
        found.append(entry)
        total += entry.size
        limits.check(len(found), total, packed)
    return found


def _distinct(entries: list[Entry], refused: type[AdiabatError]) -> list[Entry]:
    # As file systems compare that know neither case nor how an accent is written.
    names = {unicodedata.normalize("NFC", entry.name).casefold() for entry in entries}
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if len(names) < len(entries) or names & folders:
        raise refused("The archive has an entry twice; pack each file once.")
    return entries


def _without_top(entries: list[Entry]) -> list[Entry]:
    parts = [PurePosixPath(entry.name).parts for entry in entries]
    if len({part[0] for part in parts}) != 1 or any(len(part) == 1 for part in parts):
        return entries
    return [replace(entry, name="/".join(part[1:])) for entry, part in zip(entries, parts, strict=True)]


def _length(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _count(file: BinaryIO, mark: bytes) -> int:
    found, tail = 0, b""
    while chunk := file.read(CHUNK):
        found += (tail + chunk).count(mark)
        tail = chunk[-len(mark) + 1 :]
    file.seek(0)
    return found
