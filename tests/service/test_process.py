"""`adiabat serve` as its own process: killed, started twice, misconfigured, with its trainer killed under it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.encoders.half_made import half_made
from app.errors import Unavailable
from app.registry import Registry
from app.serve import Supervisor
from app.settings import Settings, unknown
from tests.conftest import environment, process, trainer_of, wait_until
from tests.service import encoders
from tests.tiny import build_tiny


def start_and_fail(settings: Settings, *options: str, **variables: str) -> str:
    """What a service that must not start says on standard error; one sentence, no traceback."""
    command = [sys.executable, "-m", "app.cli", "serve", "--no-trainer", "--port", "0", *options]
    ended = subprocess.run(
        command, env=environment(settings) | variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_setting_that_is_none_is_said_with_what_was_given_unless_it_is_a_secret(settings: Settings) -> None:
    said = start_and_fail(settings, ADIABAT_ENGINE="onx")
    assert "ADIABAT_ENGINE) is not usable: must be 'auto', 'onnx', 'openvino' or 'torch', not 'onx'." in said
    for name, value in (("API_KEY", "hunter2"), ("REGISTRY_URL", "mysql://me:hunter2@h"), ("WEBHOOK_URL", "hunter2")):
        said = start_and_fail(settings, **{f"ADIABAT_{name}": value})
        assert f"(ADIABAT_{name}) is not usable: " in said
        assert "hunter2" not in said
    for name, value in (
        ("API_KEY", "hunter22 "),
        ("API_KEY", "hunter22\r"),
        ("QDRANT_URL", "http://a:hunter2@h:x"),
        ("QDRANT_URL", "http://a:hunter2#@h"),
        ("REGISTRY_URL", "postgresql://a:hunter2/@h/d"),
        ("WEBHOOK_URL", "http://a:hunter2/"),
        ("ARTIFACTS_URL", "s3://a:hunter2@b/p"),
        ("CORS_ORIGINS", "https://a:hunter2@b"),
    ):
        said = start_and_fail(settings, **{f"ADIABAT_{name}": value})
        assert f"(ADIABAT_{name}) is not usable: " in said
        assert "hunter2" not in said
    said = start_and_fail(settings, ADIABAT_ENGINE="onx", ADIABAT_SHUTDOWN_S="x", ADIABAT_API_KEY="hunter2")
    assert all(f"(ADIABAT_{name}) is not usable: " in said for name in ("ENGINE", "SHUTDOWN_S", "API_KEY"))
    assert "hunter2" not in said
    said = start_and_fail(settings, ADIABAT_HOST="nowhere.invalid", ADIABAT_API_KEY="long-enough")
    assert "'nowhere.invalid' (--host, ADIABAT_HOST) is no address of this machine" in said
    said = start_and_fail(settings, ADIABAT_PASSAGE_ENCODER=str(settings.data_dir.parent))
    assert f"The passage encoder '{settings.data_dir.parent}' cannot be used: The folder has no modules.json" in said
    said = start_and_fail(settings, ADIABAT_QDRANT_URL="http://me:hunter2@127.0.0.1:9")
    assert "The Qdrant server at http://127.0.0.1:9 does not answer" in said


def test_a_misspelt_setting_is_told(settings: Settings) -> None:
    said = start_and_fail(settings, ADIABAT_QDRNT_URL="x", ADIABAT_ENGINE="onnx", ADIABAT_PRECISION="bf16")
    assert "ADIABAT_QDRNT_URL is no setting and does nothing; did you mean ADIABAT_QDRANT_URL?" in said
    assert [*unknown(["ADIABAT_FOO", "adiabat_prot", "ADIABAT_URL", "adiabat_url", "adiabat_port", "PATH"])] == [
        "ADIABAT_FOO is no setting and does nothing.",
        "adiabat_prot is no setting and does nothing; did you mean ADIABAT_PORT?",
        "adiabat_url is no setting and does nothing; did you mean ADIABAT_URL?",
    ]


def test_everything_acknowledged_is_there_after_kill_9(settings: Settings, tiny: Path, sources: Path) -> None:
    with process(settings, "--no-trainer") as (child, client):
        client.upsert_passages([{"id": f"p{n}", "text": f"water pump {n}"} for n in range(50)])
        client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees")))
        client.activate("bees")
        child.send_signal(signal.SIGKILL)
        child.wait()
    with process(settings, "--no-trainer") as (_, client):
        assert client.count_passages() == 50
        active = client.active_encoder()
        assert (active.encoder.name, active.encoder.generation) == ("bees", 2)
        assert client.search("pump 7").encoder.name == "bees"


def test_sigterm_closes_everything_in_order_and_ends_with_0(settings: Settings) -> None:
    with process(settings) as (child, client):
        wait_until(lambda: "alive" in client.ready().trainer)
        client.upsert_passages([{"id": "p", "text": "water pump"}])
        child.terminate()
        assert child.wait(60) == 0
    registry = Registry(settings.registry_path)
    assert registry.workers.ages_s() == {}  # the trainer took its leave, it was not left behind
    registry.close()


def test_what_a_crash_in_the_middle_of_a_publish_left_is_swept_at_the_next_start(settings: Settings) -> None:
    artifacts = settings.artifacts_dir
    (artifacts / "half@1").mkdir()  # placed, but its row was never committed
    (artifacts / "half@1" / "delta.safetensors").write_bytes(b"\0" * 100)
    named = half_made(artifacts, "staging").name.replace(f"-{os.getpid()}-", "-999999999-")  # its process is dead
    staging = artifacts / named
    staging.mkdir()
    with process(settings, "--no-trainer") as (_, client):
        assert client.ready().status == "ready"
        assert sorted(path.name for path in artifacts.iterdir() if "@" in path.name) == ["base@1"]
        assert not staging.exists()


def test_a_second_process_on_the_same_folder_is_refused_naming_the_first(settings: Settings) -> None:
    with process(settings, "--no-trainer") as (child, client):
        said = start_and_fail(settings)
        assert f"process {child.pid}" in said
        assert "ADIABAT_DATA_DIR" in said
        assert client.ready().status == "ready"


def test_another_passage_encoder_is_refused_naming_what_differs(settings: Settings, tmp_path: Path) -> None:
    other = build_tiny(tmp_path / "other", seed=9)
    said = start_and_fail(settings, ADIABAT_PASSAGE_ENCODER=str(other))
    assert "passage encoder" in said
    assert str(other) in said
    said = start_and_fail(settings, ADIABAT_QUERY_PROMPT="search: ")
    assert "query prompt (stored 'query: ', asked for 'search: ')" in said


def test_without_a_key_only_loopback_is_bound(settings: Settings) -> None:
    assert "ADIABAT_API_KEY" in start_and_fail(settings, "--host", "0.0.0.0")


def test_a_port_in_use_is_told_with_what_to_choose(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = start_and_fail(settings, "--port", str(port))
    assert f"127.0.0.1:{port} cannot be listened on" in said
    assert "ADIABAT_PORT" in said


def test_a_bad_setting_is_named_and_a_secret_is_not_repeated(settings: Settings) -> None:
    assert "ADIABAT_PORT" in start_and_fail(settings, "--port", "70000")
    said = start_and_fail(settings, ADIABAT_API_KEY="short")
    assert "ADIABAT_API_KEY" in said
    assert "short" not in said.replace("shorter", "")


def test_what_cannot_be_a_data_folder_is_named_with_what_to_set(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = start_and_fail(settings, "--data-dir", str(tmp_path / "file"))
    assert f"{tmp_path}/file cannot be the data folder" in said
    assert "--data-dir" in said


def test_an_encoder_name_that_is_no_folder_is_refused_with_what_to_set(settings: Settings, tmp_path: Path) -> None:
    fresh = settings.model_copy(update={"data_dir": tmp_path / "fresh"})
    said = start_and_fail(fresh, ADIABAT_PASSAGE_ENCODER="intfloat/multilingual-e5-small")
    assert "ADIABAT_HUB=1" in said


@pytest.mark.slow
def test_a_killed_trainer_is_started_again_and_a_killed_service_leaves_none_behind(settings: Settings) -> None:
    with process(settings) as (child, client):
        assert client.ready().trainer.startswith(("starting: this service's own", "alive"))  # and not "none yet"
        wait_until(lambda: "alive" in client.ready().trainer)
        first = trainer_of(child.pid)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: trainer_of(child.pid) not in (0, first))
        second = trainer_of(child.pid)
        child.send_signal(signal.SIGKILL)
        child.wait()
        wait_until(lambda: not Path(f"/proc/{second}").exists() or "Z" in state_of(second))


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_supervisor_outlives_a_registry_that_is_away(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, away = Registry(tmp_path / "registry.db"), [Unavailable(), None]
    spawned = threading.Event()

    def leave(_name: str) -> None:
        if away and (error := away.pop(0)):
            raise error

    def spawn(_self: Supervisor) -> "subprocess.Popen[bytes]":
        spawned.set()
        return subprocess.Popen(["sleep", "60"])

    monkeypatch.setattr(registry.workers, "leave", leave)
    monkeypatch.setattr(Supervisor, "_spawn", spawn)
    supervisor = Supervisor(settings, registry)
    supervisor.start()
    assert spawned.wait(30)
    supervisor.stop()
    registry.close()
