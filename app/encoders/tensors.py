"""Safetensors files without a framework: strict reading through a memory map, streaming writing.

Reading through the map costs no memory until a tensor is used, and one file mapped by several encoders is in
memory once. Nothing here knows encoders.
"""

import json
import math
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from app.errors import EncoderBroken

_DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": np.uint16}
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_ALIGNMENT = 64
MAX_HEADER_BYTES = 16 * 2**20  # of a model of 2,000 tensors it has 0.2
MAX_DIMENSIONS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorEntry:
    """Where one tensor lies: `offset` and `nbytes` count from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class TensorFile:
    """One `.safetensors` file. Raises `EncoderBroken` where it is missing, truncated or not what it says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = _entries(path)
        self._map: mmap.mmap | None = None

    def array(self, name: str) -> NDArray[np.float32]:
        """The tensor as fp32: a read-only view of the file where it is stored so, else a converted copy."""
        entry = self.entries[name]
        if entry.dtype not in _DTYPES:
            raise EncoderBroken(
                f"{self.path.name}: tensor {name} has type {entry.dtype}; weights must be floating point "
                "(F32, F16, BF16 or F64). Save the model unquantised."
            )
        dtype = np.dtype(_DTYPES[entry.dtype])
        raw = np.frombuffer(self._mapped(), dtype, entry.nbytes // dtype.itemsize, entry.offset)
        if entry.dtype == "BF16":  # the upper half of an fp32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(raw, dtype=np.float32).reshape(entry.shape)

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map


def _entries(path: Path) -> dict[str, TensorEntry]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"its header claims {length} bytes, at most {MAX_HEADER_BYTES} are read")
            header = json.loads(file.read(length), object_pairs_hook=_distinct)
            size = os.fstat(file.fileno()).st_size
        with safe_open(path, "np"):  # the library's own checks of header, offsets and length of the file
            pass
        header.pop("__metadata__", None)
        entries = {name: _entry(said, 8 + length) for name, said in header.items()}
        _check_layout(entries, 8 + length, size)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise EncoderBroken(
            f"{path.name} cannot be read as safetensors ({error}): the file is damaged or incomplete. Copy it again."
        ) from error
    return entries


def _entry(said: dict[str, Any], start: int) -> TensorEntry:
    begin, end = said["data_offsets"]
    return TensorEntry(dtype=said["dtype"], shape=tuple(said["shape"]), offset=start + begin, nbytes=end - begin)


def _check_layout(entries: dict[str, TensorEntry], start: int, size: int) -> None:
    """Every tensor where the file has bytes for it, and no byte in two of them. Raises ValueError."""
    end = start
    for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
        if len(entry.shape) > MAX_DIMENSIONS or any(type(length) is not int or length < 1 for length in entry.shape):
            raise ValueError(f"tensor {name[:80]!r} has the shape {str(entry.shape)[:80]}")
        item = _ITEM_BYTES.get(entry.dtype)
        if item is not None and entry.nbytes != item * math.prod(entry.shape):
            raise ValueError(f"tensor {name[:80]!r} has {entry.nbytes} bytes for the shape {entry.shape}")
        if entry.offset < end or entry.nbytes < 0:
            raise ValueError(f"tensor {name[:80]!r} lies where another one is")
        end = entry.offset + entry.nbytes
    if end > size:
        raise ValueError("a tensor lies behind the end of the file")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header has a name twice")
    return found


def write_tensors(path: Path, tensors: Iterable[tuple[str, NDArray[np.float32]]]) -> int:
    """Write fp32 tensors in the order of their names and sync. Returns the file's size in bytes."""
    listed = sorted(tensors, key=lambda pair: pair[0])
    with path.open("wb") as file:
        file.write(tensors_header((name, array.shape) for name, array in listed))
        for _, array in listed:
            file.write(raw_bytes(array))
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size


def tensors_header(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> bytes:
    """How a file of fp32 tensors begins; their bytes follow in the same order, without gaps."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes:
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-(len(said) + 8) % _ALIGNMENT)
    return len(said).to_bytes(8, "little") + said


def raw_bytes(array: NDArray[np.float32]) -> memoryview:
    """The array's bytes in C order, without a copy where it lies so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
