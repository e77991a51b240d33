"""The whole service with its registry on PostgreSQL, and two that must not share one."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.doctor.data import has_keys
from app.doctor.examine import examine
from app.doctor.finding import Level
from app.encoders.artifacts import Manifest
from app.errors import IndexSpaceMismatch
from app.passages.disk import copy_tree
from app.registry import JobStatus
from app.settings import Settings
from tests.conftest import Service, environment, process, running, wait_until
from tests.postgres import Server
from tests.service import encoders
from tests.service.keys import as_bearer
from tests.service.test_job_events import new_job


@pytest.fixture(scope="module")
def on_postgres(
    postgres: Server, seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A data folder that outgrew its machine: its registry was copied by the command."""
    folder, url = tmp_path_factory.mktemp("on-postgres"), postgres.fresh()
    copy_tree(seeded, folder / "data")
    said = registry_copied(folder / "data", url)
    assert "1 encoders, 1 activations to postgresql://" in said
    yield Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        registry_url=url,
        trainer=False,
        source_dirs=(folder,),
        threads=1,
    )
    postgres.drop(url)


def registry_copied(folder: Path, url: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "app.cli", "registry", "copy", "--data-dir", str(folder), "--to", url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended.stderr
    return ended.stderr if code else ended.stdout


@pytest.fixture(scope="module")
def on_it(on_postgres: Settings) -> Iterator[Service]:
    with running(on_postgres) as service:
        yield service


def test_passages_encoders_jobs_and_judgments_live_there(on_it: Service, tiny: Path) -> None:
    client, registry = on_it.client, on_it.parts.registry
    client.upsert_passages([{"id": "p", "text": "water pump"}])
    client.register_encoder("bees", path=str(encoders.near(tiny, on_it.settings.source_dirs[0] / "bees")))
    assert client.activate("bees").encoder.generation == 2
    assert client.search("pump").encoder.name == "bees"
    client.judge("pump", "p", 3)
    job_id = new_job(on_it.url, client)
    wait_until(lambda: registry.jobs.get(job_id).status is JobStatus.PREPARED)
    assert registry.database.on_postgresql
    assert client.rollback().encoder.generation == 3
    levels = {(each.check, each.level) for each in examine(on_it.settings)}
    assert ("registry", Level.OK) in levels
    assert ("schema", Level.OK) in levels


def test_keys_live_there_and_the_first_one_is_made_on_the_machine(
    postgres: Server, seeded: Path, tiny: Path, tmp_path: Path
) -> None:
    url = postgres.fresh()
    copy_tree(seeded, tmp_path / "data")
    registry_copied(tmp_path / "data", url)
    settings = Settings(data_dir=tmp_path / "data", passage_encoder=str(tiny), registry_url=url)
    create = ("keys", "create", "admin", "--scope", "admin", "--data-dir", str(settings.data_dir))
    made = subprocess.run(
        [sys.executable, "-m", "app.cli", *create],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    assert has_keys(settings)
    assert not has_keys(settings.model_copy(update={"registry_url": None}))
    with process(settings, "--host", "0.0.0.0", "--no-trainer") as (_, client):
        assert httpx.get(f"{client.url}/keys", trust_env=False).status_code == 401
        found = httpx.get(f"{client.url}/keys", headers=as_bearer(made.stdout.strip()), trust_env=False)
        assert [each["name"] for each in found.json()["keys"]] == ["admin"]


def test_everything_acknowledged_is_there_after_kill_9(
    postgres: Server, seeded: Path, tiny: Path, tmp_path: Path
) -> None:
    url = postgres.fresh()
    copy_tree(seeded, tmp_path / "data")
    registry_copied(tmp_path / "data", url)
    settings = Settings(
        data_dir=tmp_path / "data", passage_encoder=str(tiny), registry_url=url, source_dirs=(tmp_path,)
    )
    with process(settings, "--no-trainer") as (child, client):
        client.upsert_passages([{"id": "p", "text": "water pump"}])
        client.register_encoder("bees", path=str(encoders.near(tiny, tmp_path / "bees")))
        client.activate("bees")
        child.kill()
        child.wait()
    with process(settings, "--no-trainer") as (_, client):
        active = client.active_encoder()
        assert (active.encoder.name, active.encoder.generation) == ("bees", 2)
        assert [each.generation for each in client.history()] == [2, 1]
    postgres.drop(url)


def test_a_service_with_another_passage_encoder_is_refused_and_nothing_of_it_is_set_aside(
    on_it: Service, tmp_path: Path
) -> None:
    """Its own folder has a base and encoders: beside the wrong registry none of them may be taken for left over."""
    wrong = on_it.settings.model_copy(update={"data_dir": tmp_path / "data"})
    base = wrong.artifacts_dir / "base@1"
    shutil.copytree(on_it.settings.artifacts_dir / "base@1", base)
    replace(Manifest.read(base), digest="sha256:of-another").write(base)
    (wrong.artifacts_dir / "wasps@1").mkdir()
    with (
        pytest.raises(IndexSpaceMismatch, match=r"belongs to another collection.*REGISTRY_URL"),
        running(wrong),
    ):
        pass
    assert sorted(path.name for path in wrong.artifacts_dir.iterdir() if "@" in path.name) == ["base@1", "wasps@1"]


def test_a_service_with_an_empty_folder_is_told_to_share_the_other_ones(on_it: Service, tmp_path: Path) -> None:
    elsewhere = on_it.settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    with pytest.raises(IndexSpaceMismatch, match="share the data folder"), running(elsewhere):
        pass


def test_a_registry_is_copied_only_into_an_empty_database_and_from_a_stopped_service(
    on_it: Service, seeded: Path
) -> None:
    url = str(on_it.settings.registry_url)
    assert "holds a registry already" in registry_copied(seeded, url, code=1)
    assert "is in use by" in registry_copied(on_it.settings.data_dir, url, code=1)
    assert "--data-dir" in registry_copied(seeded / "nowhere", url, code=1)
