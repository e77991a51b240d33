"""An encoder's files: a sentence-transformers folder, or a delta laid over its base.

`EncoderFiles` answers by name, whichever folder holds it. Parameters have canonical names,
`<module>/<tensor>`, where the transformer's module is "" and another's is `<place>_<kind>`, so that two
spellings of one encoder (a `bert.` prefix, another folder name) have the same names.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoders.chain import Module, read_json, read_modules
from app.encoders.tensors import TensorFile, raw_bytes
from app.errors import EncoderBroken, SourceRefused

DELTA = "delta.safetensors"
WEIGHTS = "model.safetensors"
_PREFIXES = ("bert.", "roberta.", "mpnet.", "distilbert.", "model.")
# Heads of the pretraining task: sentence-transformers leaves them out when it loads a folder.
_HEADS = ("cls.", "lm_head.", "classifier.", "head.", "decoder.", "vocab_", "qa_outputs.", "pre_classifier.")
_BUFFERS = ("position_ids", "token_type_ids", "inv_freq")
# Sentence-transformers loads and saves the pooler, but no embedding depends on it.
_INERT = "/pooler."
_TEXTS = (".json", ".txt", ".model")
_CARD = ("README.md", "card/*.png")
MAX_CARD_BYTES = 16 * 2**20  # of the text and its pictures together; past it an encoder goes without


class EncoderFiles:
    """The files in `own`, and below them those of `base` (for a delta). Immutable: files must not change."""

    def __init__(self, own: Path, base: "EncoderFiles | None" = None) -> None:
        self.own = own
        self.base = base

    def path(self, name: str) -> Path:
        """Where the file `name` is: in the own folder, else in the base's (it may exist in neither)."""
        own = self.own / name
        return own if own.exists() or self.base is None else self.base.path(name)

    def json(self, name: str) -> Any:
        return read_json(self.path(name))

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        return read_modules(self.path)

    @property
    def transformer(self) -> PurePosixPath:
        """The folder of the transformer, relative to the encoder's: config.json and tokenizer are there."""
        return PurePosixPath(self.modules[0].path)

    def tensor_names(self) -> tuple[str, ...]:
        """Canonical names of the effective parameters, sorted."""
        return tuple(name for name in self.all_names() if not name.startswith(_INERT))

    def all_names(self) -> tuple[str, ...]:
        """As `tensor_names`, with those that sentence-transformers wants but no embedding depends on."""
        return tuple(sorted(self._index))

    def tensor(self, name: str) -> NDArray[np.float32]:
        """The parameter, fp32, read-only; mapped, not read, where it is stored as fp32."""
        file, raw = self._index[name]
        return file.array(raw)

    def shape(self, name: str) -> tuple[int, ...]:
        file, raw = self._index[name]
        return file.entries[raw].shape

    def is_shared(self, name: str) -> bool:
        """Whether the parameter is the base's own, untouched by this delta."""
        return self.base is not None and name in self.base._index and self._index[name] is self.base._index[name]

    @cached_property
    def tensor_hashes(self) -> dict[str, str]:
        """SHA-256 (hex) of each effective parameter's fp32 bytes. Reads everything, once per instance."""
        return {name: hashlib.sha256(raw_bytes(self.tensor(name))).hexdigest() for name in self.tensor_names()}

    @cached_property
    def _index(self) -> dict[str, tuple[TensorFile, str]]:
        if self.base is None or not (self.own / DELTA).exists():
            return self._full_index()
        delta = TensorFile(self.own / DELTA)
        unknown = sorted(set(delta.entries) - set(self.base._index))
        wrong = [n for n in delta.entries if n not in unknown and delta.entries[n].shape != self.base.shape(n)]
        if unknown or wrong:
            raise EncoderBroken(
                f"{DELTA} does not fit its base: tensor {(unknown + wrong)[0]} is not of its shape there."
            )
        return self.base._index | {name: (delta, name) for name in delta.entries}

    def _full_index(self) -> dict[str, tuple[TensorFile, str]]:
        index: dict[str, tuple[TensorFile, str]] = {}
        for place, module in enumerate(self.modules):
            if module.kind not in ("Transformer", "Dense"):
                continue
            scope = "" if module.kind == "Transformer" else f"{place}_{module.kind}"
            for file in self._tensor_files(module.path):
                for raw in file.entries:
                    if (name := canonical(raw)) is not None:
                        index[f"{scope}/{name}"] = (file, raw)
        return index

    def _tensor_files(self, folder: str) -> Iterator[TensorFile]:
        index = self.path(f"{folder}/{WEIGHTS}.index.json" if folder else f"{WEIGHTS}.index.json")
        single = self.path(f"{folder}/{WEIGHTS}" if folder else WEIGHTS)
        if single.exists():
            yield TensorFile(single)
        elif index.exists():
            shards = {str(shard) for shard in read_json(index).get("weight_map", {}).values()}
            if any("/" in shard or "\\" in shard for shard in shards):
                raise SourceRefused(f"{index.name} names weights outside its folder.")
            yield from (TensorFile(index.with_name(shard)) for shard in sorted(shards))
        else:
            self._refuse(single)

    def _refuse(self, missing: Path) -> None:
        pickled = [p.name for p in missing.parent.glob("*.bin")] if missing.parent.is_dir() else []
        if pickled:
            raise SourceRefused(
                f"The weights are only there as {pickled[0]}, a pickle, which may run code when it is read. "
                "Save the model as safetensors (SentenceTransformer(...).save(folder))."
            )
        raise EncoderBroken(f"The weights file {missing.name} is missing.")


def canonical(raw: str) -> str | None:
    """The canonical tensor name; None for buffers and for heads that no embedding uses."""
    name = raw
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if name.endswith(_BUFFERS) or name.startswith(_HEADS):
        return None
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def text_files(files: EncoderFiles) -> dict[str, Path]:
    """Configuration and tokenizer files of the effective encoder, by name relative to its folder."""
    found: dict[str, Path] = {} if files.base is None else text_files(files.base)
    for folder in {"", *(module.path for module in files.modules)}:
        for path in (files.own / folder).glob("*"):
            if path.suffix in _TEXTS and path.is_file() and not path.name.endswith(".index.json"):
                found[str(PurePosixPath(folder) / path.name)] = path
    return {name: path for name, path in found.items() if not name.startswith("adiabat")}


def card_files(files: EncoderFiles) -> dict[str, Path]:
    """The model card and its pictures, by name: the encoder's own, since the base's tells of the base."""
    found = {
        str(path.relative_to(files.own)): path
        for glob in _CARD
        for path in sorted(files.own.glob(glob))
        if path.is_file() and not path.is_symlink() and not path.parent.is_symlink()
    }
    return found if sum(path.stat().st_size for path in found.values()) <= MAX_CARD_BYTES else {}
