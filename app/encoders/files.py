"""What is done with whole encoders: write one out in full, write one as a delta, look for damaged weights.

A delta holds what a tuned encoder has that its base has not. Everything written is synced.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.encoders.digest import tokenizer_fingerprint
from app.encoders.overlay import DELTA, WEIGHTS, EncoderFiles, card_files, text_files
from app.encoders.spec import read_spec
from app.encoders.tensors import write_tensors
from app.errors import EncoderBroken

__all__ = ["DeltaReport", "EncoderFiles", "check_finite", "fsync_tree", "write_delta", "write_full"]

_CHUNK = 2 * 2**20  # weights looked at in one go


def check_finite(files: EncoderFiles) -> None:
    """Raise `EncoderBroken` naming the first parameter that holds NaN or infinity."""
    for name in files.tensor_names():
        flat = files.tensor(name).reshape(-1)
        if not all(np.isfinite(flat[i : i + _CHUNK]).all() for i in range(0, flat.size, _CHUNK)):
            raise EncoderBroken(f"Parameter {name} holds NaN or infinity: the training that made it diverged.")


def fsync_tree(folder: Path) -> None:
    """Make everything below `folder` durable, contents before the names that lead to them."""
    for here, _, names in os.walk(folder, topdown=False):
        for path in (*(Path(here) / name for name in names), Path(here)):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def write_full(files: EncoderFiles, dest: Path) -> None:
    """Write the complete sentence-transformers folder to `dest` (made if missing), synced."""
    _copy(text_files(files) | card_files(files), dest)
    for place, module in enumerate(files.modules):
        if module.kind not in ("Transformer", "Dense"):
            (dest / module.path).mkdir(parents=True, exist_ok=True)
            continue
        scope = "/" if module.kind == "Transformer" else f"{place}_{module.kind}/"
        folder = dest / module.path
        folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in files.all_names() if name.startswith(scope)]
        write_tensors(folder / WEIGHTS, ((name.removeprefix(scope), files.tensor(name)) for name in names))
    fsync_tree(dest)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaReport:
    """How the tuned encoder differs from its base, counted in single weights; `bytes` is the delta's size."""

    tensors: int
    weights_total: int
    weights_moved: int
    max_abs_change: float
    mean_abs_change: float  # over the weights that moved
    bytes: int


def write_delta(base: EncoderFiles, tuned: EncoderFiles, dest: Path) -> DeltaReport:
    """Write the delta of `tuned` over `base` to `dest` (made if missing), synced.

    Raises `EncoderBroken` where the two have not the same parameters.
    """
    if [(n, tuned.shape(n)) for n in tuned.tensor_names()] != [(n, base.shape(n)) for n in base.tensor_names()]:
        raise EncoderBroken("The two encoders have not the same parameters, so one is no delta of the other.")
    dest.mkdir(parents=True, exist_ok=True)
    moved, largest, total = 0, 0.0, 0.0
    differing = []
    for name in tuned.tensor_names():
        change = np.abs(tuned.tensor(name) - base.tensor(name))
        if (count := int(np.count_nonzero(change))) or not _same_bits(base, tuned, name):
            differing.append(name)
            moved += count
            largest = max(largest, float(change.max()))
            total += float(change.sum(dtype=np.float64))
    write_tensors(dest / DELTA, ((name, tuned.tensor(name)) for name in differing))
    _write_texts(base, tuned, dest)
    _copy(card_files(tuned), dest)
    fsync_tree(dest)
    return DeltaReport(
        tensors=len(differing),
        weights_total=sum(tuned.tensor(name).size for name in tuned.tensor_names()),
        weights_moved=moved,
        max_abs_change=largest,
        mean_abs_change=total / moved if moved else 0.0,
        bytes=sum(path.stat().st_size for path in dest.rglob("*") if path.is_file()),
    )


def _same_bits(base: EncoderFiles, tuned: EncoderFiles, name: str) -> bool:
    """-0.0 equals 0.0 as a number and differs as bytes, and the digest is over bytes."""
    return bool(np.array_equal(base.tensor(name).view(np.uint32), tuned.tensor(name).view(np.uint32)))


def _write_texts(base: EncoderFiles, tuned: EncoderFiles, dest: Path) -> None:
    """Copy the texts of `tuned` that mean something else; another spelling of the same is left out.

    Either all that differ are copied or none, because two versions of sentence-transformers keep one fact in
    different files; only the tokenizer, the one large file, is judged by itself.
    """
    base_spec, spec = read_spec(base), read_spec(tuned)
    same_tokenizer = tokenizer_fingerprint(base, base_spec) == tokenizer_fingerprint(tuned, spec)
    if base_spec == spec and same_tokenizer:
        return
    same_layout = [m.path for m in base.modules] == [m.path for m in tuned.modules]
    theirs = text_files(base)
    differing = {}
    for name, path in text_files(tuned).items():
        skip = same_tokenizer and same_layout and path.name == "tokenizer.json"
        if not skip and (name not in theirs or theirs[name].read_bytes() != path.read_bytes()):
            differing[name] = path
    _copy(differing, dest)


def _copy(files: Mapping[str, Path], dest: Path) -> None:
    for name, path in files.items():
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, dest / name)
