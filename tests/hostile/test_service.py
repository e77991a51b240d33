"""Hostile encoders sent to the real service: a sentence and a slug each, nothing half-registered, searches go on."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from app.client import ApiError
from app.settings import Settings
from bench import fuzz
from tests.conftest import Service, running
from tests.service import encoders
from tests.service.archives import leftovers, packed, upload


def altered(tiny: Path, folder: Path, name: str, change: Callable[[dict[str, object]], dict[str, object]]) -> bytes:
    """The tiny encoder with one JSON file changed, as an archive."""
    shutil.copytree(tiny, folder)
    said = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(change(said)))
    return packed(folder, "tar.gz")


def refused(service: Service, answer: httpx.Response, status: int, slug: str, word: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:adiabat:problem:{slug}"), answer.text
    assert word in answer.json()["detail"]
    assert leftovers(service) == {"base@1"}
    assert [item.name for item in service.client.encoders()] == ["base"]
    assert service.client.search("water").encoder.name == "base"


def test_each_hostile_encoder_is_refused_by_its_own_slug_and_nothing_is_left(
    service: Service, tiny: Path, tmp_path: Path, sources: Path
) -> None:
    huge = altered(tiny, tmp_path / "huge", "config.json", lambda said: said | {"num_hidden_layers": 10**8})
    refused(service, upload(service, huge), 413, "too-large", "num_hidden_layers")
    other = altered(tiny, tmp_path / "other", "config.json", lambda said: said | {"intermediate_size": 100_000})
    refused(service, upload(service, other), 409, "encoder-broken", "do not fit")
    regex = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    slow = altered(tiny, tmp_path / "slow", "tokenizer.json", lambda said: said | {"pre_tokenizer": regex})
    refused(service, upload(service, slow), 422, "source-refused", "regular expression")
    panics = altered(tiny, tmp_path / "panics", "tokenizer.json", lambda said: said | {"normalizer": _bad_map()})
    refused(service, upload(service, panics), 409, "encoder-broken", "tokenizer.json cannot be read")

    fifo = encoders.near(tiny, sources / "fifo")
    (fifo / "tokenizer_config.json").unlink()
    os.mkfifo(fifo / "tokenizer_config.json")
    _refused_folder(service, "fifo", "source-refused", "neither a file nor a folder")
    many = encoders.near(tiny, sources / "many")
    for number in range(1_100):
        (many / f"{number}.txt").touch()
    _refused_folder(service, "many", "too-large", "files")


def _bad_map() -> dict[str, str]:
    return {"type": "Precompiled", "precompiled_charsmap": "////fwAAAAAAAA=="}


def _refused_folder(service: Service, name: str, slug: str, word: str) -> None:
    with pytest.raises(ApiError, match=word) as caught:
        service.client.register_encoder(name, path=name)
    assert caught.value.slug == slug
    assert leftovers(service) == {"base@1"}


@pytest.mark.parametrize("settings", [{"examine_bytes": 700 * 2**20}], indirect=True)
def test_an_encoder_that_would_take_all_memory_is_refused_and_the_service_goes_on(
    service: Service, tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "wide"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 1_500_000}))
    weights = load_file(folder / "model.safetensors")
    words = np.zeros((1_500_000, 32), np.float32)
    weights["embeddings.word_embeddings.weight"] = words
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(service, upload(service, packed(folder)), 413, "too-large", "ADIABAT_EXAMINE_BYTES")


@pytest.mark.parametrize("settings", [{"examine_timeout_s": 0.01}], indirect=True)
def test_an_encoder_that_takes_for_ever_is_refused_and_the_service_goes_on(
    service: Service, tiny: Path, tmp_path: Path
) -> None:
    content = packed(encoders.near(tiny, tmp_path / "bees"))
    refused(service, upload(service, content), 409, "encoder-broken", "ADIABAT_EXAMINE_TIMEOUT_S")


def test_fuzzed_archives_never_end_in_a_5xx(service: Service) -> None:
    for number in range(15):
        _, archive = fuzz.made(5, number, None)
        answer = upload(service, archive)
        assert 400 <= answer.status_code < 500, (number, answer.text)
    assert leftovers(service) == {"base@1"}


def test_a_failing_tokenizer_fails_its_request_and_not_the_next(service: Service) -> None:
    """What a library's panic does to the thread that embeds: a registered encoder was looked at, and yet."""
    dispatcher = service.parts.slot.current.encoder.dispatcher
    kept = dispatcher._engine._tokenizer._kept
    tokenizer = kept.tokenizer
    try:
        kept.tokenizer = _Panicking()
        with pytest.raises(ApiError) as caught:
            service.client.search("water")
        assert caught.value.slug == "encoder-broken"
    finally:
        kept.tokenizer = tokenizer
    assert service.client.search("water").encoder.name == "base"


class _Panicking:
    def encode_batch_fast(self, _texts: list[str]) -> list[object]:
        raise type("PanicException", (BaseException,), {})("index out of bounds")


def test_no_address_is_ever_fetched_and_the_hub_is_off(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0)
        address = f"http://127.0.0.1:{inside.getsockname()[1]}/model"
        for source in (address, "file:///etc/passwd", "//127.0.0.1/model", "s3://bucket/model", "owner/name"):
            for body in ({"path": source}, {"hub": source}, {"url": source}):
                sent = {"name": "x", "source": body}
                answer = httpx.post(f"{service.url}/encoders", json=sent, trust_env=False)
                assert answer.status_code == 422, (body, answer.text)
                assert answer.json()["type"].rpartition(":")[2] in ("source-refused", "invalid-field")
        answer = httpx.put(f"{service.url}/datasets/x", json={"hub": "owner/name"}, trust_env=False)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:adiabat:problem:source-refused")
        with pytest.raises(BlockingIOError):
            inside.accept()


def test_the_settings_say_how_much_a_child_may_take(settings: Settings) -> None:
    with running(settings.model_copy(update={"examine_bytes": 5 * 2**30, "examine_timeout_s": 30})) as small:
        assert small.parts.registrar._rules.limits.memory_bytes == 5 * 2**30
