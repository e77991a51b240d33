"""`adiabat jobs` and `adiabat datasets` against a real service; the test plays the trainer on its registry."""

import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import insert, select

from app.cli import jobs
from app.cli.jobs import find, print_result
from app.errors import BadInput, JobNotFound
from app.registry import EventKind, JobStatus, Registry
from app.registry.tables import tuning_jobs
from app.wire.tuning_jobs import TuningJobPublic
from tests.conftest import Service, wait_until
from tests.service.test_cli import adiabat

LINES = (
    '{"query": "why smoke a hive", "lang": "en", "split": "train", "relevant": ["p1", "p2"]}\n'
    '{"query": "warum raucht der Imker", "lang": "de", "split": "dev", "relevant": {"p1": 2}}\n'
)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "questions.ndjson"
    path.write_text(LINES)
    return path


@pytest.fixture
def new_job(service: Service, lines: Path) -> Callable[[], str]:
    def make() -> str:
        service.client.put_dataset("d", lines)
        return service.client.create_tuning_job("bees", "d").id

    return make


def claimed(registry: Registry, job_id: str) -> None:
    wait_until(lambda: registry.jobs.get(job_id).status is JobStatus.PREPARED)
    assert registry.jobs.claim("test") is not None


def test_a_job_is_followed_shown_resumed_and_given_up_by_the_beginning_of_its_id(
    service: Service, new_job: Callable[[], str]
) -> None:
    registry, job_id = service.parts.registry, new_job()
    short = job_id[:8]
    assert "job-not-resumable" in adiabat(service, "jobs", "resume", short, code=1)
    claimed(registry, job_id)
    registry.jobs.report(job_id, {"phase": "tuning", "step": 2, "steps": 9, "loss": 0.5}, held_by="test")
    registry.events.tell(job_id, EventKind.MEASURED, when="before", half="prove", dev=0.25, guards={"d:dev": 0.5})
    registry.jobs.interrupt(worker="test")
    said = adiabat(service, "jobs", "follow", short, "--json", code=1, error=False)
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, 8))
    assert (events[-1]["kind"], events[-1]["data"]["status"]) == ("end", "interrupted")
    shown = adiabat(service, "jobs", "follow", short, code=1, error=False)
    assert f"job {job_id}: interrupted" in shown
    assert "resume it" in shown
    listed = adiabat(service, "jobs", "list")
    assert listed.split("\n")[0].split() == ["job", "name", "queued", "at", "took", "status"]
    assert "2/9" in listed
    assert f"{datetime.fromtimestamp(service.client.tuning_job(job_id).created_at):%Y-%m-%d %H:%M}" in listed
    assert json.loads(adiabat(service, "jobs", "resume", short, "--json"))["status"] == "queued"
    assert f"job {job_id}: cancel" in adiabat(service, "jobs", "cancel", short)


def test_a_beginning_that_is_too_short_or_fits_several_jobs_is_told_so(
    service: Service, new_job: Callable[[], str]
) -> None:
    job_id = new_job()
    with service.parts.registry.database.write() as connection:
        row = connection.execute(select(tuning_jobs)).one()._asdict()
        for twin in ("abcd1" + "0" * 27, "abcd2" + "0" * 27):
            connection.execute(insert(tuning_jobs).values(row | {"id": twin}))
    assert find(service.client, job_id).id == job_id
    assert find(service.client, "ABCD2").id.startswith("abcd2")
    with pytest.raises(BadInput, match=r"'abc' is too short; give at least 4"):
        find(service.client, "abc")
    with pytest.raises(BadInput, match=r"2 jobs begin with .abcd. \(abcd.0000000, abcd.0000000\)"):
        find(service.client, "abcd")
    with pytest.raises(JobNotFound, match="begins with 'ffffffff'"):
        find(service.client, "ffffffff")


def test_datasets_are_put_as_lines_shown_by_split_and_language_and_deleted(service: Service, lines: Path) -> None:
    service.client.upsert_passages([{"id": "p1", "text": "smoke calms bees"}])
    put = adiabat(service, "datasets", "put", "questions", str(lines))
    assert "2 queries (dev 1, train 1)" in put
    assert "1 judged passages are not stored (p2 …)" in put
    shown = adiabat(service, "datasets", "show", "questions")
    assert "train  " in shown
    assert "en 1" in shown
    assert "(p2 …)" in shown
    assert "questions: dev 1, train 1; over the stored passages" in adiabat(service, "datasets", "list")
    assert "questions deleted" in adiabat(service, "datasets", "delete", "questions")
    assert "dataset-not-found" in adiabat(service, "datasets", "show", "questions", code=1)


def test_the_result_of_an_earlier_version_is_shown_as_far_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    job = TuningJobPublic(
        id="0" * 32,
        name="bees",
        parent="base@1",
        dataset="bees",
        guards=["de"],
        recipe={},
        gate={},
        activate="never",
        status="succeeded",
        progress={},
        result={
            "dev": {"before": 0.5, "after": 0.6},
            "guards": {"de": {"before": 0.4, "after": 0.4, "relative": 0.0}},
            "gate": {"passed": True, "reasons": ["kept: dev"]},
        },
        created_at=0.0,
    )
    print_result(job)
    shown = capsys.readouterr()
    assert "0.6000" in shown.out + shown.err
    assert "+0.1000" in shown.out + shown.err


@pytest.mark.parametrize("dataset", ["beekeeping:de", "beekeeping-of-the-alps-and-the-sea:practice"])
def test_the_result_of_a_tuning_fits_a_narrow_terminal_and_no_figure_is_cut(
    monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    figures = {"queries": 1234, "before": 0.5, "after": 0.4, "low": -0.1234, "high": -0.0766, "relative": -0.2}
    gate = {"passed": True, "reasons": []}
    job = TuningJobPublic(
        id="0" * 32,
        name="bees",
        parent="base@1",
        dataset="bees",
        guards=[dataset],
        recipe={},
        gate={},
        activate="never",
        status="succeeded",
        progress={},
        result={"dev": figures, "guards": {dataset: figures}, "gate": gate},
        created_at=0.0,
    )
    drawn = io.StringIO()
    monkeypatch.setattr(jobs, "console", Console(file=drawn, width=80))
    print_result(job)
    lines = drawn.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("1234  0.5000  0.4000  -0.1000  -0.1234 to -0.0766    -20.0%" in line for line in lines) == 2
    assert dataset == "".join(line.split(" ")[0] for line in lines[2:])
