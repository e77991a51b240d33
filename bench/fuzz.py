"""Damaged and hostile encoders without end: whatever comes is read, or refused with a sentence, soon.

    python bench/fuzz.py [--inputs N] [--seed S] [--start I] [--target NAME] [--json FILE]
    python bench/fuzz.py --url http://127.0.0.1:8000 [--inputs N] [--seed S]

Input I of a seed is always the same, so a run goes on with `--start`, and a failure is seen again with
`--start I --inputs 1`. Each is read as `POST /encoders` reads an archive: unpacked, every file looked at, the
tokenizer tried. The work is done in a child with bounded memory, which is started again when it dies. With `--url` the
archives are sent to a running service instead.

Printed: how the inputs ended, by target. `read` and the refusals are right; `unexplained` is a refusal that only the
last resort made (its first input and message are told), `slow` took over 10 s, `crash` ended the process, `5xx` is
the service's.
"""

import argparse
import gzip
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from app.archives import unpack
from app.encoders.admit import read_stranger
from app.encoders.artifacts import Manifest
from app.encoders.digest import digest_encoder
from app.encoders.overlay import EncoderFiles
from app.encoders.packed import pack
from app.errors import AdiabatError, SourceRefused

HIDDEN, VOCABULARY, POSITIONS = 8, 40, 32
MAX_BYTES = 4 * 2**20
MEMORY_BYTES = 4 * 2**30
SLOW_S = 10
BATCH = 500
Files = dict[str, bytes]

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**12, 10**400, 1e308, float("nan"), float("inf"), 0.5),
    *("", "x", "\0", "\ud800", "../../etc/passwd", "/dev/zero", "con", "a" * 5_000, "<s>", "[UNK]", "(a+)+$"),
    *("mean", "bert", "torch.nn.modules.activation.Tanh"),
    *([], {}, [[]], {"a": {"a": {}}}, [1, 2], {"Regex": "(a|aa)+$"}, {"Regex": "("}, {"String": ""}),
)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


PARTS: tuple[tuple[str, str, Any], ...] = (  # what a tokenizer may be made of, in good and in bad forms
    ("normalizer", "normalizers", {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 9}),
    ("normalizer", "normalizers", {"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}),
    ("normalizer", "normalizers", {"type": "Prepend", "prepend": "a" * 99}),
    ("normalizer", "normalizers", {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAAAAA=="}),
    ("normalizer", "normalizers", {"type": "NFKC"}),
    ("normalizer", "normalizers", {"type": "Lowercase"}),
    ("pre_tokenizer", "pretokenizers", _split("\\s+")),
    ("pre_tokenizer", "pretokenizers", _split("(x+x+)+y")),
    ("pre_tokenizer", "pretokenizers", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}),
    ("pre_tokenizer", "pretokenizers", {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one; else they take turns")
    parser.add_argument("--url", help="a running service to send the archives to")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.seed, given.start, given.inputs, given.target)
        return
    found = Found()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was found so far is told then too
    try:
        if given.url:
            send(given, found)
        else:
            watch(given, found)
    finally:
        found.tell(time.monotonic() - began)
        if given.json:
            given.json.write_text(json.dumps(found.record(), indent=1) + "\n")
    sys.exit(1 if found.bad else 0)


# The inputs


@cache
def whole() -> Files:
    """A good encoder, as small as one is."""
    draw = np.random.default_rng(0)

    def tensor(*shape: int) -> Any:
        return draw.standard_normal(shape).astype(np.float32)

    weights = {
        f"embeddings.{kind}_embeddings.weight": tensor(rows, HIDDEN)
        for kind, rows in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2))
    }
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        weights |= {
            f"encoder.layer.0.{name}.weight": tensor(HIDDEN, HIDDEN),
            f"encoder.layer.0.{name}.bias": tensor(HIDDEN),
        }
    config = {
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": POSITIONS,
    }
    said: dict[str, Any] = {
        "config.json": config,
        "modules.json": [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(
                (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
            )
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": None},
        "tokenizer_config.json": {"model_max_length": 16, "padding_side": "right"},
        "tokenizer.json": tokenizer(),
    }
    files = {name: json.dumps(value).encode() for name, value in said.items()}
    return files | {"model.safetensors": save(weights, {"format": "pt"})}


def tokenizer() -> dict[str, Any]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "##a", "##b", "the"]
    marks = {name: {"id": name, "ids": [words.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    template = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [{"id": n, "content": words[n], "special": True} | plain for n in range(4)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": marks},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: n for n, word in enumerate(words)},
        },
    }


def hurt_bytes(content: bytes, draw: random.Random) -> bytes:
    """Cut, flipped, repeated, with numbers at places where lengths may be."""
    hurt = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(hurt) + 1)
        kind = draw.randrange(5)
        if kind == 0:
            del hurt[at:]
        elif kind == 1 and at < len(hurt):
            hurt[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            hurt[at:at] = hurt[max(0, at - draw.randint(1, 200)) : at] * draw.randint(1, 9)
        elif kind == 3:
            hurt[at : at + 8] = draw.choice((0, 1, 2**31, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")
        else:
            hurt[at : at + 4] = bytes(draw.randrange(256) for _ in range(4))
    return bytes(hurt)


def hurt_json(value: Any, draw: random.Random) -> Any:
    """The value with a few of its places given something odd, removed, nested, repeated."""
    for _ in range(draw.randint(1, 3)):
        value = _hurt_place(value, draw)
    return value


def _hurt_place(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        rest = {name: held for name, held in value.items() if name != key}
        return draw.choice(
            (rest, {**rest, key: _hurt_place(value[key], draw)}, {**value, key: _hurt_place(value[key], draw)})
        )
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        return draw.choice(
            (value[:at], [*value[:at], _hurt_place(value[at], draw), *value[at + 1 :]], value * draw.choice((2, 300)))
        )
    if draw.random() < 0.05:
        for _ in range(draw.choice((5, 200, 2_000))):
            value = [value] if draw.random() < 0.5 else {"type": "Sequence", "normalizers": [value]}
        return value
    return draw.choice(ODD)


def written(value: Any) -> bytes:
    """As JSON, though it be too deep for the library to write or hold half a character; cut where it has no end."""
    said = io.StringIO()
    try:
        for part in json.JSONEncoder().iterencode(value):  # not `dumps`: lists of lists of lists take gigabytes
            if said.tell() > 2 * MAX_BYTES:
                break
            said.write(part)
    except RecursionError:
        return b"[" * 5_000 + b"]" * 5_000
    return said.getvalue().encode()


def hostile_config(files: Files, draw: random.Random) -> Files:
    name = draw.choice(sorted(name for name in files if name.endswith(".json") and name != "tokenizer.json"))
    return files | {name: written(hurt_json(json.loads(files[name]), draw))}


def hostile_tokenizer(files: Files, draw: random.Random) -> Files:
    said = json.loads(files["tokenizer.json"])
    for _ in range(draw.randint(0, 3)):
        place, nested, part = draw.choice(PARTS)
        held = said.get(place)
        said[place] = draw.choice((part, {"type": "Sequence", nested: [each for each in (held, part) if each]}))
    if draw.random() < 0.7:
        said = hurt_json(said, draw)
    return files | {"tokenizer.json": written(said)}


def hostile_tensors(files: Files, draw: random.Random) -> Files:
    content = files["model.safetensors"]
    length = int.from_bytes(content[:8], "little")
    if draw.random() < 0.5:
        return files | {"model.safetensors": hurt_bytes(content, draw)}
    header = written(hurt_json(json.loads(content[8 : 8 + length]), draw))
    claimed = draw.choice((len(header), len(header), len(header), 2**40, len(header) + 8))
    return files | {"model.safetensors": claimed.to_bytes(8, "little") + header + content[8 + length :]}


def hostile_files(files: Files, draw: random.Random) -> Files:
    """Files missing, empty, swapped, in places they should not be in, or any of the above."""
    kind = draw.randrange(6)
    name = draw.choice(sorted(files))
    if kind == 0:
        return {other: content for other, content in files.items() if other != name}
    if kind == 1:
        return files | {
            name: draw.choice((b"", b"\xff" * 99, b"[" * 99_999, b"{}", b"[]", b"null", b'"' + b"9" * 9_999))
        }
    if kind == 2:
        return files | {name: files[draw.choice(sorted(files))]}
    if kind == 3:
        return files | {name: hurt_bytes(files[name], draw)}
    odd = (
        "../x",
        "/x",
        "a/../../x",
        "con/x",
        "x" * 300,
        "a\nb",
        "\u202ex",
        "é/x",
        "e\u0301/x",
        "./a",
        "a//b",
        "a\\..\\b",
        "",
    )
    return files | {draw.choice(odd): b"x", draw.choice(odd): b"y"}


def hostile_archive(files: Files, draw: random.Random) -> bytes:
    archive = packed(files, draw, links=draw.random() < 0.2)
    return hurt_bytes(archive, draw) if draw.random() < 0.8 else archive


def packed(files: Files, draw: random.Random, *, links: bool = False) -> bytes:
    """As zip, tar or tar.gz."""
    form = draw.choice(("zip", "tar", "tar.gz"))
    buffer = io.BytesIO()
    if form == "zip":
        method = draw.choice((*[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED] * 20, zipfile.ZIP_BZIP2))
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name or "."), content, method)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w", format=draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if links and draw.random() < 0.1:
                info.type, info.linkname = draw.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), "model.safetensors"
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue() if form == "tar" else gzip.compress(buffer.getvalue(), 1)


def _packed(made: Callable[[Files, random.Random], Files]) -> Callable[[Files, random.Random], bytes]:
    return lambda files, draw: packed(made(files, draw), draw)


TARGETS: dict[str, Callable[[Files, random.Random], bytes]] = {
    "archive": hostile_archive,
    "config": _packed(hostile_config),
    "files": _packed(hostile_files),
    "tensors": _packed(hostile_tensors),
    "tokenizer": _packed(hostile_tokenizer),
}


def made(seed: int, number: int, target: str | None) -> tuple[str, bytes]:
    """The input of that number: its target and the archive."""
    name = target or sorted(TARGETS)[number % len(TARGETS)]
    return name, TARGETS[name](whole(), random.Random(f"{seed} {number}"))


# Reading them


def read(archive: bytes, base: EncoderFiles, folder: Path) -> str:
    """What becomes of it: `read`, or the slug of the refusal. Anything else it raises is a defect."""
    with tempfile.TemporaryDirectory(dir=folder) as unpacked:
        try:
            unpack(io.BytesIO(archive), Path(unpacked), max_bytes=MAX_BYTES, refused=SourceRefused)
            files = EncoderFiles(Path(unpacked))
            spec = read_stranger(files, base)
            manifest = Manifest(
                digest=digest_encoder(files, spec),
                base_digest=None,
                parent_digest=None,
                form="full",
                dimension=spec.dimension,
                max_length=spec.max_length,
                query_prompt=spec.query_prompt,
                passage_prompt=spec.passage_prompt,
            )
            for _ in pack(files, manifest, "encoder").chunks:
                pass
        except AdiabatError as error:
            return error.slug
    return "read"


def lay_down(folder: Path) -> EncoderFiles:
    for name, content in whole().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return EncoderFiles(folder)


class _Slow(Exception):
    pass


def _too_slow(*_: object) -> None:
    raise _Slow


def work(seed: int, start: int, inputs: int, target: str | None) -> None:
    """The child: a line of JSON for each input, begun and ended."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory() as folder:
        base = lay_down(Path(folder) / "base")
        for number in range(start, start + inputs):
            name, archive = made(seed, number, target)
            print(json.dumps({"begun": number, "target": name}), flush=True)
            signal.alarm(SLOW_S)
            try:
                ended, said = read(archive, base, Path(folder)), ""
            except _Slow:
                ended, said = "slow", ""
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                ended, said = "unexplained", f"{type(error).__name__}: {error}"[:300]
            signal.alarm(0)
            print(json.dumps({"ended": ended, "said": said}), flush=True)


class Found:
    """Counts by target and end, and the first input of each bad one."""

    GOOD = frozenset(
        {"read", "source-refused", "too-large", "encoder-broken", "encoder-refused", "bad-input", "invalid-field"}
    )

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.first: dict[str, str] = {}
        self.bad = 0

    def add(self, target: str, ended: str, number: int, said: str = "") -> None:
        self.counts.setdefault(target, Counter())[ended] += 1
        if ended not in self.GOOD:
            self.bad += 1
            self.first.setdefault(f"{target} {ended} {said[:60]}", f"input {number}: {said}")

    def record(self) -> dict[str, Any]:
        return {"counts": {target: dict(ends) for target, ends in self.counts.items()}, "first": self.first}

    def tell(self, took_s: float) -> None:
        for target, ends in sorted(self.counts.items()):
            print(f"{target:<10} {sum(ends.values()):>8}  " + "  ".join(f"{end} {n}" for end, n in ends.most_common()))
        print(
            f"{sum(sum(ends.values()) for ends in self.counts.values())} inputs in {took_s:.0f} s, {self.bad} defects"
        )
        for kind, said in self.first.items():
            print(f"  {kind}: {said}")


def watch(given: argparse.Namespace, found: Found) -> None:
    """Run children over the inputs; one that dies is a crash, and the next begins behind it."""
    at, end = given.start, given.start + given.inputs
    while at < end:
        command = [sys.executable, __file__, "--worker", "--seed", str(given.seed), "--start", str(at)]
        command += ["--inputs", str(min(BATCH, end - at))] + (["--target", given.target] if given.target else [])
        quiet = {**os.environ, "RUST_BACKTRACE": "0"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
        ) as child:
            reached = _heard(_lines(child), at, found)
        if reached == at:
            sys.exit(f"The child could not begin with input {at} (status {child.returncode}).")
        at = reached
        print(f"{at} of {end}, {found.bad} defects", file=sys.stderr, flush=True)


def _lines(child: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    for line in child.stdout:
        yield json.loads(line)


def _heard(lines: Iterator[dict[str, Any]], at: int, found: Found) -> int:
    begun: dict[str, Any] | None = None
    for line in lines:
        if "begun" in line:
            begun = line
        elif begun is not None:
            found.add(begun["target"], line["ended"], begun["begun"], line["said"])
            at, begun = begun["begun"] + 1, None
    if begun is not None:
        found.add(begun["target"], "crash", begun["begun"])
        at = begun["begun"] + 1
    return at


def send(given: argparse.Namespace, found: Found) -> None:
    import httpx

    headers = {"Authorization": f"Bearer {os.environ['ADIABAT_API_KEY']}"} if "ADIABAT_API_KEY" in os.environ else {}
    with httpx.Client(base_url=given.url, headers=headers, timeout=600, trust_env=False) as http:
        for number in range(given.start, given.start + given.inputs):
            target, archive = made(given.seed, number, given.target)
            answer = http.post("/encoders", data={"name": "fuzz"}, files={"archive": ("x", archive)})
            if answer.status_code >= 500:
                found.add(target, "5xx", number, answer.text[:300])
            else:
                ended = "read" if answer.is_success else answer.json()["type"].rpartition(":")[2]
                found.add(target, ended, number, answer.json().get("detail", "")[:300])
            http.get("/health/ready").raise_for_status()


if __name__ == "__main__":
    main()
