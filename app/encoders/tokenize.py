"""Texts to token ids, as sentence-transformers does it, without transformers.

A `tokenizer.json` may carry a truncation and a padding of its own (the packaged MiniLM: 128 tokens, always); both
are put aside. The length is the encoder's maximum, padding is to the longest of the batch.
"""

import hashlib
import threading
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, normalizers

from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec
from app.encoders.tokenizer_rules import failure, guarded
from app.errors import BadInput, SourceRefused

Batch = dict[str, NDArray[np.int64]]


def tokenizer_json(files: EncoderFiles) -> bytes:
    """What is in tokenizer.json. Raises `SourceRefused` where there is none."""
    path = files.path(str(files.transformer / "tokenizer.json"))
    if not path.exists():
        raise SourceRefused(
            "The folder has no tokenizer.json. Save the tokenizer in its fast form "
            "(AutoTokenizer.from_pretrained(folder).save_pretrained(folder))."
        )
    return path.read_bytes()


def make_tokenizer(content: bytes, *, lower_case: bool) -> Tokenizer:
    """The tokenizer of that tokenizer.json, without truncation or padding. Raises `EncoderBroken`."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except BaseException as error:  # the library raises nothing more precise, and panics too
        raise failure(error, "tokenizer.json cannot be read") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if lower_case and not _lowercases(tokenizer.normalizer):
        steps = [] if tokenizer.normalizer is None else list(_steps(tokenizer.normalizer))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    return tokenizer


def _steps(normalizer: normalizers.Normalizer) -> Sequence[normalizers.Normalizer]:
    if not isinstance(normalizer, normalizers.Sequence):
        return [normalizer]
    return [normalizer[i] for i in range(len(normalizer))]


def _lowercases(normalizer: normalizers.Normalizer | None) -> bool:
    return normalizer is not None and any(isinstance(step, normalizers.Lowercase) for step in _steps(normalizer))


class _Kept:
    """A tokenizer that several encoders use; the library's own class takes no weak references."""

    __slots__ = ("__weakref__", "tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer


# By content: encoders over one base have one tokenizer, and a large vocabulary takes hundreds of megabytes.
_KEPT: weakref.WeakValueDictionary[str, _Kept] = weakref.WeakValueDictionary()
_KEPT_LOCK = threading.Lock()


def _kept(files: EncoderFiles, spec: EncoderSpec) -> _Kept:
    content = tokenizer_json(files)
    key = f"{hashlib.sha256(content).hexdigest()} {spec.lower_case} {spec.max_length} {spec.truncation_side}"
    with _KEPT_LOCK:
        kept = _KEPT.get(key)
        if kept is None:
            kept = _Kept(make_tokenizer(content, lower_case=spec.lower_case))
            kept.tokenizer.enable_truncation(spec.max_length, direction=spec.truncation_side)
            _KEPT[key] = kept
        return kept


class QueryTokenizer:
    """Thread-safe: nothing changes after the constructor."""

    def __init__(self, files: EncoderFiles, spec: EncoderSpec) -> None:
        self._spec = spec
        self._kept = _kept(files, spec)

    def split(self, texts: Sequence[str], prompt: str = "") -> list[Encoding]:
        """One encoding per text, prompt first, special tokens added, cut to the maximum length."""
        try:
            return guarded(self._kept.tokenizer, [prompt + text for text in texts])
        except (TypeError, UnicodeEncodeError) as error:
            raise BadInput("A text is not valid Unicode: it holds half of a surrogate pair.") from error

    def lengths(self, texts: Sequence[str], prompt: str = "") -> list[int]:
        """Tokens per text, as the encoder will see it."""
        return [len(encoding) for encoding in self.split(texts, prompt)]

    def encode(self, texts: Sequence[str], prompt: str = "") -> Batch:
        """Padded int64 arrays of shape (batch, longest text) by graph input."""
        return self.pad(self.split(texts, prompt))

    def pad(self, encodings: Sequence[Encoding]) -> Batch:
        """As `encode`, from encodings that `split` made."""
        shape = len(encodings), max((len(encoding) for encoding in encodings), default=0)
        ids = np.full(shape, self._spec.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding)
            here = slice(shape[1] - length, None) if self._spec.padding_side == "left" else slice(length)
            ids[row, here] = encoding.ids
            mask[row, here] = 1
            types[row, here] = encoding.type_ids
        batch = {"input_ids": ids, "attention_mask": mask}
        return batch | {"token_type_ids": types} if self._spec.token_types else batch
