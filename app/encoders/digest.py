"""The identity of an encoder: SHA-256 over everything that shapes a query's vector, and nothing else.

Covered: the effective parameters as fp32, the spec (query prompt, maximum length, pooling, …) and what the
tokenizer does to a text. So an encoder in full form, as a delta, or loaded and saved by sentence-transformers
has one digest.
"""

import hashlib
import json

from tokenizers import Tokenizer

from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec
from app.encoders.tokenize import make_tokenizer, tokenizer_json
from app.encoders.tokenizer_rules import guarded

_FORMAT = "adiabat encoder 1"
_SAMPLE = "a"
# By content: most encoders have their base's, and taking one stops every other thread, for 80 ms with MiniLM's.
_FINGERPRINTS: dict[tuple[str, bool], str] = {}


def digest_encoder(files: EncoderFiles, spec: EncoderSpec) -> str:
    """`sha256:<hex>`. Reads all weights through a memory map. Raises `EncoderBroken` for damaged files."""
    whole = hashlib.sha256(f"{_FORMAT}\n".encode())
    whole.update(f"{weights_digest(files)}\n{spec.canonical_json()}\n".encode())
    whole.update(tokenizer_fingerprint(files, spec).encode())
    return f"sha256:{whole.hexdigest()}"


def weights_digest(files: EncoderFiles) -> str:
    """Hex SHA-256 over name, type, shape and bytes of the effective parameters, in the order of their names."""
    whole = hashlib.sha256()
    for name, digest in files.tensor_hashes.items():
        whole.update(f"{name} F32 {list(files.shape(name))} {digest}\n".encode())
    return whole.hexdigest()


def weights_ending(files: EncoderFiles) -> str:
    """How the names of the engine's copies of these weights end."""
    return weights_digest(files)[:32]


def tokenizer_fingerprint(files: EncoderFiles, spec: EncoderSpec) -> str:
    """Hex SHA-256 over what the tokenizer does.

    Left out: truncation and padding, which the spec rules; the decoder, which nothing here uses; and how the
    template for special tokens is spelled: several spellings do the same, so its effect stands for it.
    """
    content = tokenizer_json(files)
    key = hashlib.sha256(content).hexdigest(), spec.lower_case
    if (known := _FINGERPRINTS.get(key)) is None:
        known = _FINGERPRINTS[key] = _fingerprint(make_tokenizer(content, lower_case=spec.lower_case))
    return known


def _fingerprint(tokenizer: Tokenizer) -> str:
    said = json.loads(tokenizer.to_str())
    for key in ("version", "truncation", "padding", "decoder", "post_processor"):
        said.pop(key, None)
    for text in ("", _SAMPLE):
        [encoding] = guarded(tokenizer, [text])
        said[f"encoded {text!r}"] = [encoding.ids, encoding.type_ids]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
