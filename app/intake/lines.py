"""A stream of bytes cut into numbered lines. Holds one line at most, and no more of it than allowed."""

from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import NamedTuple


class Line(NamedTuple):
    number: int  # from 1; blank lines count
    content: bytes | None  # None: longer than allowed


class Cutter:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._too_long = False
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that end in `chunk`, blank ones left out."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._keep(piece)
            yield from self.end()
        self._keep(rest)

    def end(self) -> Iterator[Line]:
        """The line read so far: to be called once more where the stream ends, which may be without a newline."""
        self._number += 1
        content, too_long = bytes(self._kept), self._too_long
        self._kept.clear()
        self._too_long = False
        if self._number == 1:
            content = content.removeprefix(BOM_UTF8)
        if too_long:
            yield Line(self._number, None)
        elif stripped := content.strip():
            yield Line(self._number, stripped)

    def _keep(self, piece: bytes) -> None:
        if self._too_long or len(self._kept) + len(piece) > self._max_bytes:
            self._kept.clear()
            self._too_long = True
        else:
            self._kept += piece
