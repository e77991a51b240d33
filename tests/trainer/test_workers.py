"""Several real trainer processes on one registry, killed and stopped at random: every job is done exactly once."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from app.beir import digest
from app.encoders.admission import AdmissionRules, Registrar
from app.encoders.artifacts import ArtifactStore
from app.encoders.shared_artifacts import open_artifacts
from app.registry import JobStatus, NewJob, Registry
from app.registry.jobs import HANDED_ON
from app.settings import Settings
from tests.conftest import wait_until
from tests.postgres import Server
from tests.s3 import S3Server

WORKERS = 3
LEASE_S = 3.0
RECIPE = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3}
PATIENCE_S = 400

# One process imports torch, and every worker is forked from it: a kill costs a fork, not seconds of imports.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["trainer.worker"])


def work(settings: Settings, clock_ahead_s: float, checkpoint_s: float, variables: dict[str, str]) -> None:
    """The whole life of a worker process, perhaps with a clock of its own."""
    from trainer import trials, worker
    from trainer.checkpoints import Checkpoints

    worker.be_idle = lambda: None  # beside other tests it would wait for most of its lease, and more
    trials.Checkpoints = partial(Checkpoints, every_s=checkpoint_s)  # type: ignore[attr-defined]
    os.environ.update(variables)  # it is forked from a process that may be older than they are
    true = time.time
    time.time = lambda: true() + clock_ahead_s
    made = worker.Worker(settings, f"w{os.getpid()}")
    signal.signal(signal.SIGTERM, lambda *_: made.stop())
    made.run()


@dataclass(kw_only=True)
class Crew:
    """Workers on one registry; the first one's clock is ten minutes ahead, the second one's ten minutes behind."""

    settings: Settings
    registry: Registry
    artifacts: ArtifactStore
    content: str  # the digest of the dataset
    alive: list[ForkServerProcess] = field(default_factory=list)
    started: int = 0
    checkpoint_s: float = 30.0

    def keep(self, count: int) -> None:
        """Start as many as are missing."""
        self.alive = [each for each in self.alive if each.is_alive()]
        while len(self.alive) < count:
            ahead_s = (600.0, -600.0, 0.0)[len(self.alive) % 3]
            given = (self._settings_of_next(), ahead_s, self.checkpoint_s, dict(os.environ))
            process = processes.Process(target=work, args=given)
            process.start()
            self.alive.append(process)

    def _settings_of_next(self) -> Settings:
        """With a bucket every worker is on a disk of its own, which it takes with it."""
        if self.settings.artifacts_url is None:
            return self.settings
        self.started += 1
        return self.settings.model_copy(update={"data_dir": self.settings.data_dir / f"host{self.started}"})

    def one_at_work(self) -> ForkServerProcess | None:
        holders = {job.worker for job in self.registry.jobs.with_status(JobStatus.RUNNING, JobStatus.EVALUATING)}
        busy = [each for each in self.alive if any(str(name).startswith(f"w{each.pid}/") for name in holders)]
        return random.choice(busy) if busy else None

    def kill(self) -> None:
        for each in self.alive:
            each.kill()
            each.join()


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("bucket", marks=pytest.mark.nightly)])
def crew(
    request: pytest.FixtureRequest, tmp_path: Path, world: Path, tiny_folder: Path, graphs: Path
) -> Iterator[Crew]:
    """`bucket`: on PostgreSQL, and workers see nothing of each other's disks."""
    server: Server | None = request.getfixturevalue("postgres") if request.param != "sqlite" else None
    url = server.migrated() if server else None
    s3: S3Server | None = request.getfixturevalue("s3") if request.param == "bucket" else None
    bucket = s3.fresh() if s3 else None
    settings = Settings(data_dir=tmp_path, registry_url=url, artifacts_url=bucket, trainer_lease_s=LEASE_S, threads=1)
    registry = Registry(settings.registry_at)
    artifacts = open_artifacts(settings, registry)
    shutil.copytree(graphs, artifacts.graphs, dirs_exist_ok=True)
    rules = AdmissionRules(min_cosine=0.8, min_overlap=0.5, engine="onnx", threads=1)
    Registrar(artifacts, registry, rules, overlap=None).register_base(tiny_folder, "tiny", None, None)
    with artifacts.staging() as staged:
        shutil.copytree(world / "dataset", staged, dirs_exist_ok=True)
        shutil.copy(staged / "qrels" / "train.tsv", staged / "qrels" / "dev.tsv")
        content = digest(staged)
        with artifacts.keeping(staged, content) as keep:
            keep()
    registry.datasets.put("world", content, {})
    made = Crew(settings=settings, registry=registry, artifacts=artifacts, content=content)
    yield made
    made.kill()
    registry.close()
    if server and url:
        server.drop(url)


def jobs(crew: Crew, world: Path, count: int, **recipe: Any) -> list[str]:
    made = []
    for number in range(count):
        new = NewJob(
            name=f"bees{number}",
            parent_id=crew.registry.encoders.find("base@1").id,
            dataset="world",
            guards=[],
            dataset_digests={"world": crew.content},
            recipe=RECIPE | {"seed": number} | recipe,
            gate={"min_gain": -1},
            activate="never",
        )
        job_id = crew.registry.jobs.add(new).id
        (training_set,) = (world / "matrices").iterdir()
        shutil.copytree(training_set, crew.settings.training_set_dir(job_id))
        crew.artifacts.share(f"jobs/{job_id}/training-set", crew.settings.training_set_dir(job_id))
        crew.registry.jobs.move(job_id, JobStatus.PREPARED, only_from=(JobStatus.QUEUED,))
        made.append(job_id)
    return made


def done(crew: Crew, job_ids: list[str]) -> bool:
    return all(crew.registry.jobs.get(job_id).finished for job_id in job_ids)


def require_each_once(crew: Crew, job_ids: list[str]) -> None:
    """Every job succeeded, ended once, and made one encoder; no other encoder was made."""
    made = []
    for number, job_id in enumerate(job_ids):
        job = crew.registry.jobs.get(job_id)
        assert job.status is JobStatus.SUCCEEDED, job.reason
        ends = [event for event in crew.registry.events.after(job_id, 0, 1_000) if event.kind == "end"]
        assert len(ends) == 1
        assert job.encoder_id is not None
        made.append(crew.registry.encoders.by_id(job.encoder_id).key)
        assert made[-1] == f"bees{number}@1"
    assert sorted(each.key for each in crew.registry.encoders.all()) == sorted(["base@1", *made])
    assert all((crew.artifacts.folder(key) / "adiabat.json").is_file() for key in made)


@pytest.mark.parametrize(
    ("count", "kills"), [(3, 1), pytest.param(30, 15, marks=pytest.mark.nightly)], ids=["few", "thirty"]
)
def test_every_job_is_done_exactly_once_though_workers_are_killed_at_random(
    crew: Crew, world: Path, count: int, kills: int
) -> None:
    job_ids = jobs(crew, world, count)
    until, killed = time.monotonic() + PATIENCE_S + 20 * count, 0
    while not done(crew, job_ids):
        assert time.monotonic() < until, "waited in vain"
        crew.keep(WORKERS)
        victim = crew.one_at_work() if killed < kills else None
        if victim is not None:
            time.sleep(random.uniform(0, 1))  # anywhere in its job
            victim.kill()
            victim.join()
            killed += 1
        time.sleep(0.05)
    assert killed == kills or count < kills
    require_each_once(crew, job_ids)
    attempts = [crew.registry.jobs.get(job_id).attempts for job_id in job_ids]
    assert max(attempts) > 1  # some job did change hands


@pytest.mark.parametrize("crew", ["postgresql"], indirect=True)
def test_a_worker_that_was_paused_until_another_had_its_job_publishes_nothing(crew: Crew, world: Path) -> None:
    job_ids = jobs(crew, world, 1)
    crew.keep(1)
    wait_until(lambda: crew.one_at_work() is not None, PATIENCE_S)
    [paused] = crew.alive
    assert paused.pid is not None
    os.kill(paused.pid, signal.SIGSTOP)
    crew.keep(2)
    wait_until(lambda: done(crew, job_ids) or crew.registry.jobs.get(job_ids[0]).attempts == 2, PATIENCE_S)
    os.kill(paused.pid, signal.SIGCONT)
    wait_until(lambda: done(crew, job_ids), PATIENCE_S)
    paused.terminate()
    paused.join(PATIENCE_S)
    require_each_once(crew, job_ids)


@pytest.mark.nightly
@pytest.mark.parametrize("crew", ["postgresql", "bucket"], indirect=True)
def test_a_worker_that_is_stopped_in_order_leaves_its_job_to_another_at_once(crew: Crew, world: Path) -> None:
    job_ids = jobs(crew, world, 1)
    crew.keep(2)
    wait_until(lambda: len(crew.registry.workers.ages_s()) == 2 and crew.one_at_work() is not None, PATIENCE_S)
    stopped = crew.one_at_work()
    assert stopped is not None
    stopped.terminate()
    wait_until(lambda: done(crew, job_ids), PATIENCE_S)
    assert not str(crew.registry.jobs.get(job_ids[0]).worker).startswith(f"w{stopped.pid}/")
    require_each_once(crew, job_ids)
    said = [event.data.get("reason") for event in crew.registry.events.after(job_ids[0], 0, 1_000)]
    assert HANDED_ON in said


@pytest.mark.nightly
@pytest.mark.parametrize("crew", ["bucket"], indirect=True)
def test_a_job_goes_on_from_its_checkpoint_in_the_bucket_when_the_host_that_wrote_it_is_gone_with_its_disk(
    crew: Crew, world: Path, s3: S3Server
) -> None:
    broken, unbroken = jobs(crew, world, 2, epochs=100, seed=0)
    shared, name = str(crew.settings.artifacts_url), f"jobs/{broken}/checkpoints.json"
    crew.checkpoint_s = 0.1
    crew.keep(1)
    wait_until(lambda: name in s3.objects(shared), PATIENCE_S)
    [first] = crew.alive
    first.kill()
    first.join()
    assert crew.registry.jobs.get(broken).status is JobStatus.RUNNING
    shutil.rmtree(crew.settings.data_dir / "host1")
    paths = [Path(each["path"]) for each in json.loads(s3.objects(shared)[name])["files"]]
    newest = max(int(path.stem.removeprefix("step-")) for path in paths if path.suffix == ".safetensors")
    crew.keep(1)
    wait_until(lambda: done(crew, [broken, unbroken]), PATIENCE_S)
    require_each_once(crew, [broken, unbroken])
    attempts = [crew.registry.jobs.get(job_id).attempts for job_id in (broken, unbroken)]
    told = [[event.data for event in crew.registry.events.after(job_id, 0, 1_000)] for job_id in (broken, unbroken)]
    went_on = [[each["message"] for each in data if "going on from" in each.get("message", "")] for data in told]
    assert newest > 0
    assert went_on == [[f"going on from the checkpoint after step {newest}"], []]
    assert attempts == [2, 1]
    assert len({crew.registry.encoders.find(f"bees{number}@1").digest for number in range(2)}) == 1  # to the last bit
