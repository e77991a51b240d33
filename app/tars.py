"""Tar as it is sent: its length is known before the first byte, and nothing large is in memory or copied to disk."""

import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

CHUNK = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """`chunks` makes its `size` bytes, when their turn comes."""

    name: str
    size: int
    chunks: Callable[[], Iterable[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """`size` bytes, of which `chunks` makes at most about a MiB at a time."""

    size: int
    chunks: Iterator[bytes]


def packed(members: Sequence[Member], at: float) -> Packed:
    """One after another, all as of `at`, in seconds since 1970."""
    heads = [_head(member, at) for member in members]
    end = bytes(2 * tarfile.BLOCKSIZE)

    def chunks() -> Iterator[bytes]:
        for head, member in zip(heads, members, strict=True):
            yield head
            yield from member.chunks()
            yield bytes(-member.size % tarfile.BLOCKSIZE)
        yield end

    padded = sum(member.size + -member.size % tarfile.BLOCKSIZE for member in members)
    return Packed(size=sum(map(len, heads)) + padded + len(end), chunks=chunks())


def file_member(name: str, path: Path) -> Member:
    """A file that nobody changes any more."""
    return Member(name=name, size=path.stat().st_size, chunks=partial(_of_file, path))


def _of_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _head(member: Member, at: float) -> bytes:
    said = tarfile.TarInfo(member.name)
    said.size, said.mtime, said.mode = member.size, int(at), 0o644
    return said.tobuf(tarfile.PAX_FORMAT)
