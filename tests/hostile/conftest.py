"""A small encoder as files in memory, and what is done with an altered one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.encoders.admit import read_stranger
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec
from bench import fuzz

Reader = Callable[[dict[str, bytes]], EncoderSpec]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> EncoderFiles:
    return fuzz.lay_down(tmp_path_factory.mktemp("hostile") / "base")


@pytest.fixture
def stranger(base: EncoderFiles, tmp_path: Path) -> Reader:
    """Reads the good encoder with these files in place of its own."""

    def read(altered: dict[str, bytes]) -> EncoderSpec:
        folder = tmp_path / "stranger"
        for name, content in (fuzz.whole() | altered).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return read_stranger(EncoderFiles(folder), base)

    return read


def with_config(**said: Any) -> dict[str, bytes]:
    return {"config.json": json.dumps(json.loads(fuzz.whole()["config.json"]) | said).encode()}


def with_tokenizer(**said: Any) -> dict[str, bytes]:
    return {"tokenizer.json": json.dumps(fuzz.tokenizer() | said).encode()}


def with_model(**said: Any) -> dict[str, bytes]:
    return with_tokenizer(model=fuzz.tokenizer()["model"] | said)
