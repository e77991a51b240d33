"""A registry brought to another database: everything that lasts, and numbers that go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import Conflict
from app.registry import JobStatus, Match, NewJudgment, Registry, RouteTerms
from app.registry.copying import copy_registry
from tests.registry.jobs import add, prepared_job
from tests.registry.test_queries import searched


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(tmp_path / "from.db")
    yield opened
    opened.close()


def test_what_lasts_comes_along_and_what_is_of_the_moment_does_not(file: Registry, registry: Registry) -> None:
    job_id, bees = prepared_job(file), add(file)
    file.activations.append(bees.id, reason="activate", forced=True)
    file.activations.change_route("r", RouteTerms(encoder_id=bees.id, match=Match(lang=("de",))), reason="set")
    file.datasets.put("d", "sha256:d", {"splits": {"train": 1}})
    judged, _ = file.judgments.put(NewJudgment(query="q", passage_id="p", relevance=1, lang="de"))
    file.queries.add([(searched("a" * 32), 0.0)])
    file.queries.click("a" * 32, [("p2", 2)])
    file.jobs.claim("w")
    file.workers.beat("w")
    counts = copy_registry(file.database, registry.database)
    assert {table: count for table, count in counts.items() if count} == {
        "encoders": 2,
        "activations": 1,
        "routes": 1,
        "datasets": 1,
        "tuning_jobs": 1,
        "job_events": 3,
        "judgments": 1,
        "query_log": 1,
        "clicks": 1,
        "audit": 6,
    }
    assert registry.encoders.all() == file.encoders.all()
    assert registry.activations.newest(9) == file.activations.newest(9)
    assert registry.routes.standing() == file.routes.standing()
    assert registry.datasets.all() == file.datasets.all()
    assert registry.jobs.get(job_id) == file.jobs.get(job_id)
    assert registry.events.after(job_id, 0, 9) == file.events.after(job_id, 0, 9)
    assert registry.judgments.all() == [judged]
    assert registry.queries.page(9) == file.queries.page(9)
    assert registry.workers.ages_s() == {}


def test_numbers_go_on_where_the_copied_ones_end(file: Registry, registry: Registry) -> None:
    newest = max(add(file, digest=f"sha256:{n}").id for n in range(3))
    for n in range(3):
        file.judgments.put(NewJudgment(query=f"q{n}", passage_id="p", relevance=1, lang=None))
        file.queries.add([(searched(f"{n:032x}"), 0.0)])
        file.queries.click(f"{n:032x}", [("p1", 1)])
    copy_registry(file.database, registry.database)
    assert add(registry, "wasps").id == newest + 1
    judged, _ = registry.judgments.put(NewJudgment(query="q9", passage_id="p", relevance=1, lang=None))
    assert judged.sequence == 4
    registry.queries.add([(searched("9" * 32), 0.0)])
    registry.queries.click("9" * 32, [("p1", 1)])
    assert registry.queries.find("9" * 32).sequence == 4
    assert registry.queries.clicked_revision().sequence == 4
    assert registry.jobs.with_status(JobStatus.QUEUED) == []


def test_a_database_that_holds_a_registry_is_left_alone(file: Registry, registry: Registry) -> None:
    add(file)
    add(registry, "wasps")
    with pytest.raises(Conflict, match="holds a registry already"):
        copy_registry(file.database, registry.database)
    assert [each.name for each in registry.encoders.all()] == ["wasps"]
