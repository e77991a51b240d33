"""An exported graph on disk: `graph.onnx` without weights, `map.json`, which says where each one goes, and the sums
of both, by which damage is told from a graph that fits no encoder.

The graph is the same for all encoders of an architecture. Its initialisers point into a file `weights.bin`,
which is written here for each encoder, with numpy alone.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoders.chain import read_json
from app.encoders.half_made import half_made
from app.encoders.mounts import is_own
from app.encoders.tensors import raw_bytes
from app.errors import EncoderBroken

GRAPH = "graph.onnx"
MAP = "map.json"
SUMS = "sums.json"
WEIGHTS = "weights.bin"
ALIGNMENT = 4096  # a page, so that the runtime may map the file
AT_ONCE = 2**20  # values that are compared in one go


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where a parameter goes. `table` marks the token embeddings: never in the file, shared in memory instead."""

    name: str
    initializer: str
    transpose: bool
    offset: int
    nbytes: int
    table: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphMap:
    key: str
    inputs: tuple[str, ...]
    placements: tuple[Placement, ...]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> "GraphMap":
        said = read_json(path)
        try:
            placements = tuple(Placement(**each) for each in said["placements"])
            return GraphMap(key=said["key"], inputs=tuple(said["inputs"]), placements=placements)
        except (KeyError, TypeError) as error:
            raise EncoderBroken(f"{path} is damaged ({error}); remove its folder and it is made again.") from error

    @property
    def weights_bytes(self) -> int:
        return max((place.offset + place.nbytes for place in self.placements if not place.table), default=0)


def write_sums(folder: Path) -> None:
    """The last thing to be written to a graph's folder."""
    (folder / SUMS).write_text(json.dumps(_sums(folder), indent=1) + "\n")


def is_whole(folder: Path) -> bool:
    """Whether a graph is there, and is what was written."""
    try:
        said: object = json.loads((folder / SUMS).read_bytes())
        return said == _sums(folder)
    except (OSError, ValueError):
        return False


def table_file(weights_dir: Path, digest: str) -> Path:
    """Where token embeddings whose fp32 bytes have this SHA-256 are kept."""
    return weights_dir / f"table-{digest[:32]}.bin"


def map_table(array: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """`array` out of a file of the same bytes, which is made where it is missing or differs: the processes of a machine
    that use these embeddings have them in memory once.

    The artifact itself is not mapped for long, since a file cut short under a map kills the process: this one nobody
    else writes, and it is never changed in place. A copy in memory where there can be no such file, or where another
    machine may remove it: what is removed there is gone from the map too.
    """
    found = None
    if not is_own(path.parent):
        return np.array(array, dtype=np.float32, order="C")
    with suppress(OSError):  # a full disk, one that is read-only, or another process that just removed it
        if path.exists() and _mapped(array, path) is None:
            path.unlink(missing_ok=True)
        if not path.exists():
            _write_table(array, path)
        found = _mapped(array, path)
    return np.array(array, dtype=np.float32, order="C") if found is None else found


def _mapped(array: NDArray[np.float32], path: Path) -> NDArray[np.float32] | None:
    if not path.exists() or path.stat().st_size != array.nbytes:
        return None
    # Copy on write, since not every runtime takes what it may not write; none does write.
    found = np.memmap(path, dtype=np.float32, mode="c", shape=array.shape)
    theirs, ours = (each.reshape(-1).view(np.uint32) for each in (found, array))
    pieces = (slice(at, at + AT_ONCE) for at in range(0, ours.size, AT_ONCE))
    return found if all(np.array_equal(theirs[piece], ours[piece]) for piece in pieces) else None


def _write_table(array: NDArray[np.float32], path: Path) -> None:
    half = half_made(path.parent)
    try:
        with half.open("wb") as file:
            file.write(raw_bytes(array))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster: both are to map one file
            path.hardlink_to(half)
    finally:
        half.unlink(missing_ok=True)


def _sums(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (GRAPH, MAP)}


def write_weights(graph: GraphMap, tensor: Callable[[str], NDArray[np.float32]], folder: Path) -> Path:
    """Write `folder/weights.bin`, unless it is there; it appears whole or not at all. Returns its path."""
    path = folder / WEIGHTS
    if path.exists() and path.stat().st_size == graph.weights_bytes:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    half = half_made(folder)
    try:
        with half.open("wb") as file:
            for place in sorted(graph.placements, key=lambda place: place.offset):
                if not place.table:
                    file.seek(place.offset)
                    array = tensor(place.name)
                    file.write(raw_bytes(array.T if place.transpose else array))
            file.flush()
            os.fsync(file.fileno())
        half.rename(path)
    finally:
        half.unlink(missing_ok=True)
    return path
