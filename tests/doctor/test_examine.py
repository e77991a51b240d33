"""Each check against a real data folder: whole, damaged, held, missing, or contradicted by the settings."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from app.doctor import data, machine
from app.doctor.examine import examine, examine_machine
from app.doctor.finding import Finding, Level
from app.encoders import engine as engines
from app.settings import Settings
from tests.conftest import Service, has_bf16, openvino_needed, running

BASE = "base@1"


def found(settings: Settings, check: str) -> Finding:
    """The worst finding of that check."""
    order = [Level.OK, Level.WARN, Level.FAIL]
    return max((each for each in examine(settings) if each.check == check), key=lambda each: order.index(each.level))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_whole_data_folder_is_all_ok_and_left_as_it_was(settings: Settings) -> None:
    before = listing(settings.data_dir)
    findings = [*examine_machine(), *examine(settings)]
    assert [each for each in findings if each.level is not Level.OK] == []
    assert all(each.mend is None for each in findings)
    assert listing(settings.data_dir) == before


def test_a_folder_that_is_not_there_is_no_failure_and_is_not_made(settings: Settings, tmp_path: Path) -> None:
    fresh = settings.model_copy(update={"data_dir": tmp_path / "fresh"})
    assert {each.level for each in examine(fresh)} == {Level.OK}
    assert "the first start copies" in found(fresh, "model").said.lower()
    assert not fresh.data_dir.exists()


def test_a_running_service_is_named_and_not_disturbed(service: Service) -> None:
    service.client.upsert_passages([{"id": "a", "text": "the water pump"}])
    assert {each.level for each in examine(service.settings)} == {Level.OK}
    assert found(service.settings, "lock").said.startswith(f"process {os.getpid()} on ")
    assert service.client.search("water").hits[0].id == "a"


def test_a_service_that_ended_holds_nothing(settings: Settings) -> None:
    with running(settings):
        pass
    assert found(settings, "lock").said.startswith("Nobody serves")


def test_a_damaged_registry_fails(settings: Settings) -> None:
    path = settings.registry_path
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    path.write_bytes(content)
    finding = found(settings, "registry")
    assert finding.level is Level.FAIL
    assert "backup" in str(finding.mend)
    path.write_bytes(b"this is no database, though it is as long as one" * 100)
    assert found(settings, "registry").level is Level.FAIL


@pytest.mark.parametrize(
    ("revision", "level", "word"), [("0001", Level.WARN, "migrates"), ("9999", Level.FAIL, "newer")]
)
def test_the_registry_of_another_release_is_told(settings: Settings, revision: str, level: Level, word: str) -> None:
    with closing(sqlite3.connect(settings.registry_path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    finding = found(settings, "schema")
    assert finding.level is level
    assert word in str(finding.mend)


def test_a_changed_base_fails(settings: Settings) -> None:
    weights = settings.artifacts_dir / BASE / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert "not those that were registered" in found(settings, "model").said


def test_settings_that_ask_for_another_index_space_fail(settings: Settings) -> None:
    other = settings.model_copy(update={"query_prompt": "search: "})
    assert "query prompt (stored 'query: ', asked for 'search: ')" in found(other, "model").said
    nowhere = settings.model_copy(update={"passage_encoder": "intfloat/multilingual-e5-small"})
    assert "ADIABAT_HUB=1" in found(nowhere, "model").said


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda current: current | {"shard": "shard-000009"}, "shard-000009"),
        (
            lambda current: current | {"index_space": current["index_space"] | {"passage_encoder_digest": "sha256:0"}},
            "another passage encoder",
        ),
        (lambda _: {}, "could not be looked at"),
    ],
)
def test_a_store_that_does_not_fit_fails(
    settings: Settings, damage: Callable[[dict[str, object]], dict[str, object]], word: str
) -> None:
    current = settings.passages_dir / "CURRENT"
    current.write_bytes(orjson.dumps(damage(orjson.loads(current.read_bytes()))))
    finding = found(settings, "store")
    assert finding.level is Level.FAIL
    assert word in finding.said


def test_a_server_that_does_not_answer_fails_and_passages_left_here_are_told(settings: Settings) -> None:
    server = settings.model_copy(update={"qdrant_url": "http://127.0.0.1:9"})
    assert "does not answer" in found(server, "store").said
    assert "are not searched" in found(server, "settings").said


def test_little_room_is_told_before_writes_fail(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MIN_FREE_BYTES", 2**62)
    assert found(settings, "disk").level is Level.FAIL


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"host": "0.0.0.0"}, "ADIABAT_API_KEY"),
        ({"qdrant_api_key": "secret"}, "ADIABAT_QDRANT_URL"),
        ({"source_dirs": (Path("/nowhere"),)}, "/nowhere"),
        ({"open_metrics": True}, "ADIABAT_OPEN_METRICS"),
    ],
)
def test_settings_that_contradict_are_told(settings: Settings, changed: dict[str, object], word: str) -> None:
    finding = found(settings.model_copy(update=changed), "settings")
    assert finding.level is not Level.OK
    assert word in f"{finding.said} {finding.mend}"
    assert "secret" not in finding.said


def test_a_misspelt_variable_and_too_many_threads_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADIABAT_PROT", "8001")
    assert "ADIABAT_PROT" in found(settings, "settings").said
    assert "ADIABAT_THREADS=" in str(found(settings.model_copy(update={"threads": 4096}), "threads").mend)


def test_the_engine_is_told_with_its_reason(settings: Settings) -> None:
    assert "because ADIABAT_ENGINE=torch" in found(settings.model_copy(update={"engine": "torch"}), "engine").said
    assert "GPU" in found(settings, "engine").said
    assert "in fp32" in found(settings, "engine").said


@openvino_needed
def test_openvino_is_told_with_its_precision(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    finding = found(settings.model_copy(update={"engine": "auto", "precision": "bf16"}), "engine")
    assert "OpenVINO" in finding.said
    assert "and ADIABAT_PRECISION=bf16" in finding.said
    assert (finding.level is Level.OK) == has_bf16()
    from app.encoders import openvino_engine

    monkeypatch.setattr(openvino_engine, "has_bf16", lambda: False)
    finding = found(settings.model_copy(update={"engine": "openvino", "precision": "bf16"}), "engine")
    assert (finding.level, finding.mend) == (Level.FAIL, "Set ADIABAT_PRECISION=fp32.")
    assert "because ADIABAT_ENGINE=openvino: this processor has no bf16" in finding.said


def test_engines_that_cannot_run_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(settings.model_copy(update={"engine": "onnx", "precision": "bf16"}), "engine")
    assert finding.level is Level.FAIL
    assert "ADIABAT_ENGINE=openvino" in str(finding.mend)
    monkeypatch.setattr(machine, "find_spec", lambda _name: None)
    finding = found(settings.model_copy(update={"engine": "openvino"}), "engine")
    assert finding.level is Level.FAIL
    assert "OpenVINO is not installed" in finding.said
    assert "adiabat[openvino]" in str(finding.mend)
