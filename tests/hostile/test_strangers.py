"""Encoders made to hurt: each refused with a sentence before anything is made of it."""

import base64
import json
import time
from typing import Any

import pytest

from app.encoders.tokenizer_rules import MAX_TOKENS
from app.errors import EncoderBroken, SourceRefused, TooLarge
from bench import fuzz
from tests.hostile.conftest import Reader, with_config, with_model, with_tokenizer

SOON_S = 30  # of a machine that has much else to do


def regex(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def safetensors(header: object, tail: bytes = b"", claimed: int | None = None) -> dict[str, bytes]:
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return {"model.safetensors": (len(said) if claimed is None else claimed).to_bytes(8, "little") + said + tail}


def tensor(begin: int, end: int, *shape: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


def mapped(text: bytes) -> str:
    return base64.b64encode((4).to_bytes(4, "little") + bytes(4) + text + b"\0").decode()


def test_the_good_one_is_read(stranger: Reader) -> None:
    assert stranger({}).dimension == fuzz.HIDDEN
    assert stranger(with_tokenizer(pre_tokenizer=regex(r"\s+"))).dimension == fuzz.HIDDEN


@pytest.mark.parametrize(
    ("said", "kind", "word"),
    [
        ({"hidden_size": 10**6, "vocab_size": 10**6}, TooLarge, "hidden_size is 1000000"),
        ({"hidden_size": 16_000, "vocab_size": 2_000_000, "num_hidden_layers": 200}, TooLarge, "parameters"),
        ({"num_hidden_layers": 10**9}, TooLarge, "num_hidden_layers"),
        ({"model_type": "modernbert", "num_hidden_layers": 10**9}, TooLarge, "num_hidden_layers"),
        ({"max_position_embeddings": 10**12}, TooLarge, "max_position_embeddings"),
        ({"hidden_size": 0}, EncoderBroken, "at least 1"),
        ({"hidden_size": -8}, EncoderBroken, "at least 1"),
        ({"pad_token_id": 10**6}, EncoderBroken, "vocabulary has not"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, SourceRefused, "auto_map"),
        ({"attn_implementation": "somebody/kernel"}, SourceRefused, "code from elsewhere"),
        ({"vocab_size": "many"}, EncoderBroken, "vocab_size"),
    ],
)
def test_a_config_that_asks_for_what_no_encoder_has(
    stranger: Reader, said: dict[str, Any], kind: type[Exception], word: str
) -> None:
    with pytest.raises(kind, match=word):
        stranger(with_config(**said))


@pytest.mark.parametrize(
    ("altered", "kind", "word"),
    [
        (with_tokenizer(pre_tokenizer=regex("(a+)+$")), SourceRefused, "regular expression"),
        (with_tokenizer(pre_tokenizer=regex("(?:a|aa)*b")), SourceRefused, "regular expression"),
        (with_tokenizer(pre_tokenizer=regex("a*")), SourceRefused, "regular expression"),
        (with_tokenizer(normalizer=replace({"Regex": r"(\w+\s?)+:"}, "")), SourceRefused, "regular expression"),
        (with_tokenizer(normalizer=replace({"String": "a"}, "a" * 10**6)), SourceRefused, "1000000 characters"),
        (
            with_tokenizer(normalizer={"type": "Sequence", "normalizers": [replace({"String": "a"}, "aa")] * 30}),
            SourceRefused,
            "1073741824 times",
        ),
        (
            with_tokenizer(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 100}),
            SourceRefused,
            "102 steps",
        ),
        (
            with_tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": mapped(b"a" * 10**6)}),
            SourceRefused,
            "character map",
        ),
        (with_tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}), EncoderBroken, "base64"),
        (with_model(vocab={str(n): n for n in range(MAX_TOKENS + 1)}), TooLarge, "vocab"),
        (with_model(max_input_chars_per_word=10**9), SourceRefused, "1000000000 characters"),
        (with_model(vocab={"[UNK]": 0, "a": 99}), EncoderBroken, "token id 99"),
        (with_model(dropout=0.5), SourceRefused, "dropout"),
        (with_model(unk_token="[GONE]"), EncoderBroken, "tokenizer"),
        (
            with_tokenizer(added_tokens=[fuzz.tokenizer()["added_tokens"][0] | {"content": "x" * 10**5}]),
            SourceRefused,
            "added token",
        ),
        ({"tokenizer.json": b"[" * 100_000}, EncoderBroken, "not JSON"),
        ({"tokenizer.json": b"[1]"}, EncoderBroken, "not a JSON object"),
        ({"tokenizer.json": b" " * (64 * 2**20 + 1)}, TooLarge, "bytes"),
        ({"config.json": b"[" * 100_000}, EncoderBroken, "not JSON"),
        ({"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": "evil.py"}}'}, SourceRefused, "auto_map"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
def test_a_tokenizer_that_is_a_bomb(
    stranger: Reader, altered: dict[str, bytes], kind: type[Exception], word: str
) -> None:
    began = time.monotonic()
    with pytest.raises(kind, match=word):
        stranger(altered)
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize(
    ("altered", "word"),
    [
        (safetensors(b"{}", claimed=2**40), "header claims"),
        (safetensors(b"{}", claimed=2**64 - 1), "header claims"),
        (safetensors(b"[" * 100_000), "safetensors"),
        (safetensors({"a": tensor(0, 16, 4), "b": tensor(8, 24, 4)}, bytes(24)), "safetensors"),
        (safetensors({"a": tensor(0, 2**40, 2**38)}, bytes(16)), "safetensors"),
        (safetensors({"a": tensor(-16, 0, 4)}, bytes(16)), "safetensors"),
        (safetensors({"a": tensor(0, 16, 2**62, 4)}, bytes(16)), "safetensors"),
        (safetensors({"a": tensor(0, 16, *[1] * 99, 4)}, bytes(16)), "shape"),
        (safetensors({"a": tensor(0, 0, 0, 10**15)}), "shape"),
        (safetensors({"a": tensor(0, 16, 5)}, bytes(16)), "safetensors"),
        (safetensors({"a": [0, 16]}, bytes(16)), "safetensors"),
        (safetensors(b'{"a": {"dtype": "F32"}, "a": {"dtype": "F32"}}', bytes(16)), "twice"),
        (safetensors({"a": tensor(0, 16, 4)}, bytes(16 + 2**20)), "safetensors"),
    ],
    ids=range(13),
)
def test_weights_whose_header_lies(stranger: Reader, altered: dict[str, bytes], word: str) -> None:
    with pytest.raises(EncoderBroken, match=word):
        stranger(altered)
