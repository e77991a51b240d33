"""Services and trainers with folders of their own: a bucket, a database and a collection are all that they share."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.datasets import zip_folder
from app.client import AdiabatClient, ApiError
from app.errors import Conflict, IndexSpaceMismatch, Unavailable
from app.passages.disk import copy_tree
from app.registry import Registry
from app.registry.copying import copy_registry
from app.settings import Settings
from tests.conftest import environment, free_port, process, running, wait_until
from tests.postgres import Server
from tests.s3 import S3Server
from tests.service import encoders
from tests.service.test_bucket_jobs import damage
from tests.service.test_tuning_jobs import GENTLE, dataset, passages


def run(settings: Settings, *arguments: str, code: int | None = 0) -> str:
    """What the command said; with None it may end as it likes."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    variables = environment(settings) | {"COLUMNS": "1000"}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert code in (ended.returncode, None), ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


__all__ = ["dataset"]  # a fixture


@dataclass(kw_only=True)
class Site:
    """`first` and `second` are services; `folders` are theirs, by the same names."""

    settings: Settings
    s3: S3Server
    first: AdiabatClient
    second: AdiabatClient
    tiny: Path
    folders: dict[str, Path] = field(default_factory=dict)
    made: int = 0

    @property
    def url(self) -> str:
        return str(self.settings.artifacts_url)

    def source(self) -> str:
        self.made += 1
        folder = encoders.near(self.tiny, self.settings.source_dirs[0] / f"source{self.made}", seed=self.made)
        return str(folder)

    def copies(self, name: str) -> set[str]:
        return {path.name for path in (self.folders[name] / "artifacts").iterdir() if "@" in path.name}

    def content(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.s3.objects(self.url)[f"{name}.json"]))


@pytest.fixture(scope="module")
def site(
    s3: S3Server, qdrant: str, postgres: Server, seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One machine's folder and registry, copied to where several machines find them; then two services, each alone."""
    folder, url = tmp_path_factory.mktemp("site"), postgres.fresh()
    settings = Settings(
        data_dir=folder / "first" / "data",
        passage_encoder=str(tiny),
        registry_url=url,
        artifacts_url=s3.fresh(),
        qdrant_url=qdrant,
        collection=f"adiabat_test_{folder.name}",
        trainer=False,
        source_dirs=(folder,),
        threads=1,
    )
    copy_tree(seeded, settings.data_dir)
    source, target = Registry(settings.registry_path), Registry(url)
    copy_registry(source.database, target.database)
    source.close()
    target.close()
    lacking = rf"is not in {settings.artifacts_url}.*adiabat artifacts copy"
    with pytest.raises(IndexSpaceMismatch, match=lacking), running(settings):
        pass
    assert "encoders/base@1" in run(settings, "artifacts", "copy", "--to", str(settings.artifacts_url))
    other = settings.model_copy(update={"data_dir": folder / "second" / "data"})
    other.data_dir.mkdir(parents=True)
    # Made again where it is missing, in half a minute; what this is about would not be tested better.
    shutil.copytree(seeded / "artifacts" / "graphs", other.artifacts_dir / "graphs")
    with ExitStack() as stack:
        _, first = stack.enter_context(process(settings, "--no-trainer"))
        _, second = stack.enter_context(process(other, "--no-trainer"))
        first.upsert_passages([{"id": f"p{n}", "text": f"water pump {n}"} for n in range(5)])
        folders = {"first": settings.data_dir, "second": other.data_dir}
        yield Site(settings=settings, s3=s3, first=first, second=second, tiny=tiny, folders=folders)
    postgres.drop(url)


def test_what_one_registers_all_switch_to_and_what_one_deletes_is_gone(site: Site) -> None:
    assert site.first.register_encoder("bees", path=site.source()).version == 1
    assert "bees@1" not in site.copies("second")
    answer = site.first.activate("bees")
    assert (answer.replicas.live, answer.replicas.switched) == (2, 2)
    assert "bees@1" in site.copies("second")
    assert site.second.search("water pump").encoder.digest == site.first.search("water pump").encoder.digest
    assert site.second.register_encoder("wasps", path=site.source()).version == 1
    whole = site.content("encoders/wasps@1")
    assert site.first.search("water pump", encoder="wasps").hits
    site.first.delete_encoder("wasps@1")
    left = site.s3.objects(site.url)
    assert "encoders/wasps@1.json" not in left
    assert not [path for path in left if whole["area"] in path]
    assert {path.partition("/")[0] for path in left} == {"encoders", "objects"}


def test_while_the_bucket_is_away_searches_go_on_and_what_needs_it_is_told_to_come_again(site: Site) -> None:
    site.first.register_encoder("ants", path=site.source())
    source = site.source()
    active = site.second.active_encoder().encoder
    site.s3.kill()
    try:
        for call in (
            lambda: site.second.activate("ants"),  # which has no copy of it
            lambda: site.second.search("water", encoder="ants"),
            lambda: site.first.register_encoder("moths", path=source),
            lambda: site.first.put_dataset("d", _dataset(site)),
        ):
            with pytest.raises(ApiError, match=f"{site.url} does not answer") as refused:
                call()
            assert (refused.value.status, refused.value.slug) == (503, "unavailable")
            assert refused.value.retry_after_s
        for client in (site.first, site.second):
            assert client.search("water pump").encoder.digest == active.digest
            assert client.ready().status == "ready"
        assert site.first.encoder("ants").state == "ready"
        second = site.settings.model_copy(update={"data_dir": site.folders["second"]})
        with process(second, "--no-trainer") as (_, third):  # one that starts has what it needs on its disk
            assert third.search("water pump").encoder.digest == active.digest
        [behind] = site.first.activate("ants", timeout_s=10).replicas.behind  # which has a copy
        assert f"{site.url} does not answer" in str(behind.reason)
        assert site.second.search("water pump").encoder.digest == active.digest
        assert [each.name for each in site.first.encoders() if each.name == "moths"] == []
    finally:
        site.s3.start()
    wait_until(lambda: site.second.active_encoder().encoder.name == "ants")
    assert site.first.register_encoder("moths", path=source).version == 1


def _dataset(site: Site) -> Path:
    path = site.settings.source_dirs[0] / "d.ndjson"
    path.write_text('{"query": "a", "relevant": ["p0"]}\n')
    return path


@pytest.mark.parametrize("lacking", ["base@1", "active"])
def test_a_service_that_lacks_what_it_needs_does_not_start_without_the_bucket_and_changes_nothing(
    site: Site, tmp_path: Path, lacking: str
) -> None:
    name = "drones" if lacking == "active" else "base"
    if lacking == "active":
        site.first.register_encoder(name, path=site.source())
        site.first.activate(name)
    alone = site.settings.model_copy(update={"data_dir": tmp_path / "data"})
    copy_tree(site.folders["second"], alone.data_dir)
    shutil.rmtree(alone.artifacts_dir / f"{name}@1")
    history = site.first.history()
    site.s3.kill()
    try:
        with pytest.raises(Unavailable, match=f"{site.url} does not answer"), running(alone):
            pass
    finally:
        site.s3.start()
    assert site.first.history() == history
    assert site.first.encoder(f"{name}@1").state == "ready"
    with running(alone) as service:
        assert service.client.search("water pump").encoder == site.first.search("water pump").encoder


def test_a_bucket_that_lies_is_refused_by_the_objects_name_and_nothing_else_is_lost(site: Site) -> None:
    site.first.register_encoder("flies", path=site.source())
    active = site.second.active_encoder().encoder
    told = site.content("encoders/flies@1")
    [delta] = [each for each in told["files"] if each["path"] == "delta.safetensors"]
    path = f"objects/{told['area']}/{delta['sha256']}"
    true = site.s3.objects(site.url)[path]
    site.s3.put(site.url, path, true[:-1] + bytes([true[-1] ^ 1]))
    with pytest.raises(ApiError, match=f"{site.url}/{path}, delta.safetensors, has SHA-256") as refused:
        site.second.activate("flies")
    assert (refused.value.status, refused.value.slug) == (409, "encoder-broken")
    assert site.second.search("water pump").encoder == active
    assert "flies@1" not in site.copies("second")
    site.s3.put(site.url, path, true)
    assert site.second.activate("flies").encoder.name == "flies"
    assert site.first.encoder("flies").state == "ready"


def test_a_copy_that_was_damaged_here_is_brought_again(site: Site) -> None:
    site.first.register_encoder("gnats", path=site.source())
    weights = site.folders["first"] / "artifacts" / "gnats@1" / "delta.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    assert site.first.search("water pump", encoder="gnats").hits
    assert site.first.encoder("gnats").state == "ready"


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_job_that_one_host_prepared_is_done_by_a_trainer_on_another(
    site: Site, dataset: Path, seeded: Path, tmp_path: Path, damaged: bool
) -> None:
    """Where what it prepared was damaged in the bucket, after it was prepared once more."""
    site.second.upsert_passages(passages())
    site.second.put_dataset("pumps", zip_folder(dataset, tmp_path / "pumps.zip"))
    job_id = site.second.create_tuning_job("pumps", "pumps", recipe=GENTLE, gate={"min_gain": -1}).id
    if damaged:
        wait_until(lambda: f"jobs/{job_id}/training-set.json" in site.s3.objects(site.url))
        damage(site.s3, site.settings, job_id)
    settings = site.settings.model_copy(update={"data_dir": tmp_path / "data"})
    shutil.copytree(seeded / "artifacts" / "graphs", settings.artifacts_dir / "graphs")
    command = [sys.executable, "-m", "trainer"]
    with subprocess.Popen(command, env=environment(settings)) as trainer:
        try:
            done = site.first.wait_for_job(job_id)
            assert done.status in ("succeeded", "rejected"), done
            assert done.encoder is not None
            assert done.result is not None
        finally:
            trainer.send_signal(signal.SIGTERM)
    assert site.second.search("water pump", encoder=done.encoder.name).hits
    wait_until(lambda: not [path for path in site.s3.objects(site.url) if path.startswith("jobs/")])
    assert list(settings.jobs_dir.iterdir()) == []


def test_another_registry_is_kept_out_of_the_bucket(site: Site, postgres: Server, tmp_path: Path) -> None:
    other = site.settings.model_copy(update={"registry_url": postgres.fresh(), "data_dir": tmp_path / "data"})
    before = site.s3.objects(site.url)
    theirs = rf"{site.url} holds the encoders of the registry .*ARTIFACTS_URL"
    with pytest.raises(Conflict, match=theirs), running(other):
        pass
    assert site.s3.objects(site.url) == before
    postgres.drop(str(other.registry_url))


def test_a_service_of_another_server_with_a_collection_of_the_same_name_is_refused(site: Site, tmp_path: Path) -> None:
    """Two clusters on one registry: both call their passages by the default name."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "tests.qdrant_rest", str(port)]) as child:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _up(f"{url}/collections/none/exists"))
            other = site.settings.model_copy(update={"qdrant_url": url, "data_dir": tmp_path / "data"})
            with pytest.raises(Conflict, match=r"is in use by .* with the id .* share one collection"), running(other):
                pass
            assert httpx.get(f"{url}/collections/{other.collection}", trust_env=False).status_code == 404
        finally:
            child.kill()
    assert site.first.ready().status == site.second.ready().status == "ready"


def _up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_service_that_cannot_use_the_bucket_as_it_is_set_says_so_and_so_does_the_doctor(
    site: Site, tmp_path: Path
) -> None:
    wrong = site.settings.model_copy(update={"artifacts_url": "s3://no-such-bucket/a", "data_dir": tmp_path / "data"})
    with pytest.raises(Unavailable, match="s3://no-such-bucket/a names a bucket that does not exist"), running(wrong):
        pass
    assert "names a bucket that does not exist" in run(wrong, "doctor", code=1)
    assert f"{site.url} can be listed, read, written and deleted from" in run(site.settings, "doctor", code=None)
