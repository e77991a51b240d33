"""`torchrun -m trainer`: several processes are one trainer, beside a service that has none of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.client import AdiabatClient
from app.settings import Settings
from tests.conftest import READY_S, environment, wait_until
from tests.service.test_tuning_jobs import GENTLE, dataset, ready

__all__ = ["dataset"]  # a fixture

pytestmark = pytest.mark.nightly

START_S = 300  # two processes that import torch, at the lowest priority


@contextmanager
def launched(settings: Settings, log: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Two processes by `torchrun`; what they say goes to `log`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    command = [*launcher, "-m", "trainer"]
    with log.open("wb") as sink:
        child = subprocess.Popen(command, env=environment(settings), stderr=sink, stdout=sink, start_new_session=True)
        try:
            yield child
        finally:
            child.terminate()
            child.wait(60)


def ranks_of(launcher: int) -> dict[int, int]:
    """Process ids by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == launcher:
            found |= {int(each.removeprefix(b"RANK=")): int(entry.name) for each in variables if each[:5] == b"RANK="}
    return found


def tuning(client: AdiabatClient, name: str = "pumps", **recipe: object) -> str:
    return client.create_tuning_job(name, "pumps", recipe=GENTLE | recipe, gate={"min_gain": -1}).id


def at_work(client: AdiabatClient, job_id: str) -> bool:
    return int(client.tuning_job(job_id).progress.get("step", 0)) > 3


def test_two_processes_make_the_encoder_that_one_makes_in_two_parts_and_stop_when_asked(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    with ready(settings, dataset, tmp_path, "--no-trainer") as (_, client):
        with launched(settings, tmp_path / "log") as launcher:
            together = client.wait_for_job(tuning(client, "together"))
            assert together.status == "succeeded", together
            endless = tuning(client, epochs=1000)
            wait_until(lambda: at_work(client, endless), START_S)
            client.cancel_tuning_job(endless)
            assert client.wait_for_job(endless).status == "cancelled"
            broken = tuning(client, freeze=["*"])
            assert "leave no parameter" in (client.wait_for_job(broken).reason or "")
            again = client.wait_for_job(tuning(client, "again"))
            assert again.status == "succeeded", again  # both go on after what went before
            assert client.encoder("again").digest == client.encoder("together").digest
            stopped = tuning(client, epochs=1000)
            wait_until(lambda: at_work(client, stopped), START_S)
            os.kill(launcher.pid, signal.SIGTERM)
            assert client.wait_for_job(stopped).status == "interrupted"
            launcher.wait(60)
        said = (tmp_path / "log").read_text()
        assert "process 1 of the 2 that tune together" in said
        assert "process 2 of the 2 that tune together" in said
        parts = client.create_tuning_job("parts", "pumps", recipe=GENTLE | {"accumulate": 2}, gate={"min_gain": -1})
        with subprocess.Popen(
            [sys.executable, "-m", "trainer"], env=environment(settings) | {"OMP_NUM_THREADS": "1"}
        ) as one:
            alone = client.wait_for_job(parts.id)
            one.terminate()
        assert alone.status == "succeeded", alone
        assert client.encoder("parts").digest == client.encoder("together").digest
        assert alone.result["dev"] == together.result["dev"]


def test_a_killed_process_ends_all_of_them_and_the_job_goes_on_where_it_was(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    with (
        ready(settings, dataset, tmp_path, "--no-trainer") as (_, client),
        launched(settings, tmp_path / "log", "--max-restarts", "1") as launcher,
    ):
        job_id = tuning(client, epochs=60)
        wait_until(lambda: at_work(client, job_id))
        before = ranks_of(launcher.pid)
        os.kill(before[1], signal.SIGKILL)
        ended = client.wait_for_job(job_id)
        assert ended.status == "interrupted"
        assert "of the 2 processes of this trainer is gone" in (ended.reason or "")
        client.resume_tuning_job(job_id)
        assert client.wait_for_job(job_id).status == "succeeded"
        assert not set(ranks_of(launcher.pid).values()) & set(before.values())
        sentences = [event.data["message"] for event in client.job_events(job_id) if event.kind == "log"]
        assert any(each.startswith("going on from the checkpoint after step") for each in sentences)


def test_the_first_process_is_missed_by_the_others_at_once_and_by_the_service_later(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    with ready(settings, dataset, tmp_path, "--no-trainer") as (_, client):
        with launched(settings, tmp_path / "log") as launcher:
            job_id = tuning(client, epochs=1000)
            wait_until(lambda: at_work(client, job_id), START_S)
            os.kill(ranks_of(launcher.pid)[0], signal.SIGKILL)
            assert launcher.wait(60) != 0
            assert ranks_of(launcher.pid) == {}
        wait_until(lambda: client.tuning_job(job_id).status == "interrupted", settings.trainer_lease_s + READY_S)
