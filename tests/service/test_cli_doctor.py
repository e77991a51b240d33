"""`adiabat doctor` as a command, and how commands end by the kind of what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from app.settings import Settings
from tests.conftest import Service, environment, running

KEY = "correct horse battery"


def adiabat(settings: Settings, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=environment(settings) | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_doctor_asks_a_running_service_too_and_ends_with_0(service: Service) -> None:
    ended = adiabat(service.settings, "doctor", "--url", service.url, "--json")
    answer = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stdout
    assert answer["failed"] == 0
    by_check = {each["check"]: each for each in answer["findings"]}
    assert "is ready: 0 passages, base@1, generation 1" in by_check["service"]["said"]
    assert "python -m trainer" in by_check["trainer"]["mend"]  # none runs here: worth a look, not a failure


def test_doctor_ends_with_1_and_says_what_mends_it(settings: Settings) -> None:
    ended = adiabat(settings, "doctor", "--url", "http://127.0.0.1:9")
    assert ended.returncode == 1
    assert "fail service" in ended.stdout
    assert "1 failed" in ended.stdout
    unusable = adiabat(settings, "doctor", ADIABAT_PORT="many")
    assert unusable.returncode == 1
    assert "ADIABAT_PORT" in unusable.stdout


def test_without_the_key_or_with_a_service_that_is_not_ready_commands_end_by_kind(settings: Settings) -> None:
    with running(settings.model_copy(update={"api_key": KEY})) as service:
        refused = adiabat(settings, "encoders", "list", "--url", service.url)
        assert (refused.returncode, "[unauthorized]" in refused.stderr) == (5, True)
        doctor = adiabat(settings, "doctor", "--url", service.url, "--json")
        mends = [each["mend"] for each in json.loads(doctor.stdout)["findings"] if each["level"] == "fail"]
        assert any("--api-key" in mend for mend in mends)
        service.parts.store.close()
        assert adiabat(settings, "health", "--url", service.url).returncode == 4


def test_ctrl_c_ends_a_command_with_130(service: Service) -> None:
    command = [sys.executable, "-m", "app.cli", "ingest", "-", "--url", service.url]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ.copy(),
        # Where the tests themselves run in the background, what they start would not hear of Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdin is not None
    until = time.monotonic() + 30
    while "app.cli" not in Path(f"/proc/{child.pid}/cmdline").read_text() and time.monotonic() < until:
        pass
    while not _waits_for_input(child.pid) and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"Traceback" not in said


def _waits_for_input(pid: int) -> bool:
    """The command is past its imports: it sleeps in a read of its standard input, a pipe."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text() in ("pipe_read", "anon_pipe_read")
    except OSError:
        return False


def test_the_shell_can_complete_commands(settings: Settings) -> None:
    ended = adiabat(
        settings,
        _ADIABAT_COMPLETE="complete_bash",
        _TYPER_COMPLETE_ARGS="adiabat enc",
        COMP_WORDS="adiabat enc",
        COMP_CWORD="1",
    )
    assert "encoders" in ended.stdout
