"""What a stranger's tokenizer.json may ask for: nothing that takes unbounded time or memory on some text.

A tokenizer runs in the service on every query, so what is looked for here are programs in disguise: regular
expressions that backtrack, normalizers that blow a text up, tables without end.
"""

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from app.errors import EncoderBroken, SourceRefused, TooLarge

MAX_BYTES = 64 * 2**20  # the largest in use, of a quarter of a million tokens, has half of it
MAX_TOKENS = 2**21
MAX_STEPS = 32
MAX_ADDED_CHARS = 512
MAX_INSERTED = 16  # characters that one step puts in a place
MAX_GROWTH = 64  # times, of all steps together
MAX_MAPPED_BYTES = 128  # what a character map makes of one character: Unicode's longest has 33
MAX_WORD_CHARS = 1_000  # WordPiece takes the square of it
MAX_TEMPLATE = 64
HARD_TEXT_CHARS = 8_192
HARD_TEXTS_S = 20.0

# One character or class of them, any number of times: looked for in one pass over the text.
_CLASS = r"\\[sSdDwWnrt]|\\[pP]\{\^?\w+\}|\[(?:\\.|[^\[\]\\&])+\]|[^\\\[\](){}*+?|^$]"
_PLAIN = re.compile(rf"(?:{_CLASS})(?:\+|\{{[1-9]\d?(?:,\d{{0,3}})?\}})?")
# What the byte-level tokenizers of GPT-2, cl100k and their heirs split by; each alternative goes over its text once.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_KNOWN = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        _CONTRACTIONS + _WORDS + _REST,
        _CONTRACTIONS + _WORDS + "{1,3}" + _REST,
    }
)
# Long runs of one kind, and everything that Unicode has: what makes a bad step slow or a wrong table fail.
_RUNS = ("a", " ", "A", "1", ".", "a ", "ab1. ", "\n", "é", "е́", "水", "🐝", "\u0301", "##", "▁", "\u200d", "ﷺ")


def check_tokenizer(content: bytes) -> None:
    """Raises `SourceRefused`, `TooLarge`, or `EncoderBroken` where it is no tokenizer.json at all."""
    if len(content) > MAX_BYTES:
        raise TooLarge(f"tokenizer.json has {len(content)} bytes; at most {MAX_BYTES} are read.")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EncoderBroken(f"tokenizer.json is not JSON ({error}).") from error
    try:
        _check_tables(said)
        _check_steps(said)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise EncoderBroken(f"tokenizer.json holds a value of a kind it cannot have ({error}).") from error


def check_ids(tokenizer: Tokenizer, *, vocabulary: int, token_types: int, pad_token_id: int) -> None:
    """That every number the tokenizer can give has its row in the encoder's tables. Raises `EncoderBroken`."""
    largest = max((*tokenizer.get_vocab(with_added_tokens=True).values(), pad_token_id), default=0)
    if largest >= vocabulary:
        raise EncoderBroken(
            f"The tokenizer has the token id {largest}, and config.json says vocab_size={vocabulary}: a text with "
            "that token could not be embedded."
        )
    [encoding] = guarded(tokenizer, ["a"])
    if (kind := max(encoding.type_ids, default=0)) >= token_types:
        raise EncoderBroken(f"The tokenizer gives the token type {kind}; the encoder has {token_types}.")


def check_hard_texts(tokenizer: Tokenizer) -> None:
    """Tokenize the texts that show a slow or failing tokenizer. Raises `SourceRefused`."""
    began = time.monotonic()
    for text in _hard_texts():
        guarded(tokenizer, [text])
        if (took := time.monotonic() - began) > HARD_TEXTS_S:
            raise SourceRefused(
                f"The tokenizer took {took:.0f} s for texts of {HARD_TEXT_CHARS} characters; at most "
                f"{HARD_TEXTS_S:.0f} s are taken for all of them."
            )


def guarded(tokenizer: Tokenizer, texts: list[str]) -> list[Any]:
    """`encode_batch_fast`, whose failures are ours: a panic in the library is no `Exception` and would end the thread.

    Raises `EncoderBroken`, and `TypeError` or `UnicodeEncodeError` for a text that is none.
    """
    try:
        return list(tokenizer.encode_batch_fast(texts))
    except (TypeError, UnicodeEncodeError):
        raise
    except BaseException as error:
        raise failure(error, "The tokenizer failed on a text") from error


def failure(error: BaseException, what: str) -> EncoderBroken:
    """What to raise for an error of the library; one that is none of its, such as Ctrl-C, goes on its way."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return EncoderBroken(f"{what} ({str(error)[:300]}).")


def _check_tables(said: Mapping[str, Any]) -> None:
    model = said["model"]
    added = said.get("added_tokens") or []
    for table, of in (("vocab", model), ("merges", model), ("added_tokens", said)):
        if len(of.get(table) or ()) > MAX_TOKENS:
            raise TooLarge(f"tokenizer.json has {len(of[table])} {table}; at most {MAX_TOKENS} are read.")
    if model.get("dropout"):
        raise SourceRefused("The tokenizer has a dropout: the same text would be tokenized otherwise every time.")
    if (longest := int(model.get("max_input_chars_per_word") or 0)) > MAX_WORD_CHARS:
        raise SourceRefused(f"The tokenizer takes words of {longest} characters; at most {MAX_WORD_CHARS} are taken.")
    if any(not 0 < len(str(token.get("content", ""))) <= MAX_ADDED_CHARS for token in added):
        raise SourceRefused(f"An added token of the tokenizer is empty or has over {MAX_ADDED_CHARS} characters.")
    for step in _steps(said.get("post_processor"), nested="processors"):
        pieces = [len(step.get(key) or ()) for key in ("single", "pair")]
        named = step.get("special_tokens") if isinstance(step.get("special_tokens"), dict) else {}
        pieces += [len(token.get("ids") or ()) for token in (named or {}).values()]
        if max(pieces, default=0) > MAX_TEMPLATE:
            raise SourceRefused(
                f"The tokenizer puts {max(pieces)} tokens around a text; at most {MAX_TEMPLATE} are taken."
            )


def _check_steps(said: Mapping[str, Any]) -> None:
    growth, steps = 1, 0
    for part in ("normalizer", "pre_tokenizer"):
        for step in _steps(said.get(part)):
            steps += 1
            growth *= _growth(step, part)
    if steps > MAX_STEPS:
        raise SourceRefused(f"tokenizer.json has {steps} steps before its model; at most {MAX_STEPS} are taken.")
    if growth > MAX_GROWTH:
        raise SourceRefused(f"tokenizer.json makes a text up to {growth} times as long; at most {MAX_GROWTH} is taken.")


def _steps(said: Any, nested: str = "") -> Iterator[Mapping[str, Any]]:
    """Every step, those of sequences included, each once."""
    waiting = [said]
    while waiting:
        step = waiting.pop()
        if not isinstance(step, dict):
            continue
        yield step
        for key in (nested,) if nested else ("normalizers", "pretokenizers"):
            waiting += list(step.get(key) or ())


def _growth(step: Mapping[str, Any], part: str) -> int:
    """How many times as long the step may make a text, characters inserted at its start counted too."""
    kind = step.get("type")
    pattern = step.get("pattern")
    if isinstance(pattern, dict) and "Regex" in pattern:
        _check_pattern(str(pattern["Regex"]), part)
    if kind == "Precompiled":
        _check_map(step.get("precompiled_charsmap"))
    if kind not in ("Replace", "Prepend"):
        return 1
    inserted = str(step.get("content", step.get("prepend", "")))
    if len(inserted) > MAX_INSERTED:
        raise SourceRefused(f"The {part} puts {len(inserted)} characters in a place; at most {MAX_INSERTED} are taken.")
    empty = isinstance(pattern, dict) and pattern.get("String") == ""
    return max(1, len(inserted)) + 1 if empty else max(1, len(inserted)) if kind == "Replace" else 1


def _check_pattern(pattern: str, part: str) -> None:
    if pattern not in _KNOWN and not _PLAIN.fullmatch(pattern):
        raise SourceRefused(
            f"The {part} in tokenizer.json has the regular expression {pattern[:100]!r}, which is none of those that "
            "are known to take no longer than a pass over the text. Save the model with a tokenizer without it."
        )


def _check_map(said: Any) -> None:
    """A character map: the length of a trie, the trie, and the texts it leads to, each ended by a zero byte."""
    try:
        content = base64.b64decode(str(said), validate=True)
    except ValueError as error:
        raise EncoderBroken("The character map in tokenizer.json is not base64.") from error
    texts = content[4 + int.from_bytes(content[:4], "little") :]
    longest = max(map(len, texts.split(b"\0")), default=0)
    if len(content) < 8 or longest > MAX_MAPPED_BYTES:
        raise SourceRefused(
            f"The character map in tokenizer.json makes {longest} bytes of a character; at most {MAX_MAPPED_BYTES} "
            "are taken."
        )


def _hard_texts() -> Iterator[str]:
    for run in _RUNS:
        yield (run * HARD_TEXT_CHARS)[:HARD_TEXT_CHARS]
        yield ((run * HARD_TEXT_CHARS)[: HARD_TEXT_CHARS - 1]) + "!"
    for start in range(0, 0x30000, HARD_TEXT_CHARS):
        codes = range(max(start, 1), start + HARD_TEXT_CHARS)
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
