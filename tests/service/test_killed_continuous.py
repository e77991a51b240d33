"""kill -9 of the service at every step of continuous tuning: it goes on where it was, and does nothing twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.client import AdiabatClient
from app.registry import JobStatus, Registry
from app.registry.job_records import AT_WORK
from app.settings import Settings
from tests.conftest import process, running, wait_until
from tests.service import encoders
from tests.service.killed_continuous import COMMITTED, IN_TRANSACTION, MOMENT
from tests.service.test_continuous import BOTH, ENOUGH
from tests.service.test_tuning_jobs import passages, question

pytestmark = pytest.mark.nightly

LOGGING = {"ADIABAT_QUERY_LOG": "1"}
SIGKILLED = -9


@pytest.fixture
def ordered(settings: Settings, tiny: Path, sources: Path) -> Iterator[Registry]:
    """An order that is due, and its encoder; the service is down."""
    with running(settings.model_copy(update={"query_log": 1.0})) as service:
        client = service.client
        client.upsert_passages(passages())
        client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees", scale=0.5)), force=True)
        for n in range(ENOUGH):
            client.judge(question(n), f"p{n}", 1)
    registry = Registry(settings.registry_path)
    terms = {"name": "learned", "min_new_judgments": ENOUGH, "canary": BOTH, "on_success": "promote"}
    registry.continuous.set(terms, "at once")
    yield registry
    registry.close()


@contextmanager
def up(settings: Settings, moment: str = "") -> Iterator[AdiabatClient]:
    """The service; at its end it was killed if `moment` says so."""
    variables = LOGGING | ({MOMENT: moment} if moment else {})
    program = "tests.service.killed_continuous"
    with process(settings, "--no-trainer", program=program, variables=variables) as (child, client):
        yield client
        if moment:
            assert child.wait(60) == SIGKILLED


def kinds(registry: Registry) -> list[str]:
    return [str(step.kind) for step in registry.continuous.page(9)][::-1]


def tune(registry: Registry, settings: Settings) -> None:
    """The trainer's part: what the service left is prepared by the next one."""
    job = registry.jobs.all()[0]
    with up(settings):
        wait_until(lambda: registry.jobs.get(job.id).status is JobStatus.PREPARED)
    assert registry.jobs.claim("test") is not None
    made = registry.encoders.find("bees").id
    assert registry.jobs.move(job.id, JobStatus.SUCCEEDED, only_from=AT_WORK, encoder_id=made)


def prefer_the_canary(client: AdiabatClient) -> None:
    with httpx.Client(base_url=client.url, trust_env=False) as http:
        for _ in range(30):
            answer = http.post("/search", json={"query": question(7), "limit": 6}).json()
            place = (client.queries(limit=1).searches[0].teams or "").find("c")
            if place >= 0:
                client.feedback(answer["search_id"], [(answer["hits"][place]["id"], place + 1)])


def test_it_goes_on_where_it_was_killed(settings: Settings, ordered: Registry) -> None:
    registry = ordered
    with up(settings, IN_TRANSACTION):
        pass
    assert (kinds(registry), registry.jobs.all()) == (["set"], [])
    with up(settings, COMMITTED):
        pass
    assert (kinds(registry), len(registry.jobs.all())) == (["set", "started"], 1)
    tune(registry, settings)
    with up(settings, IN_TRANSACTION):
        pass
    assert (kinds(registry), registry.activations.newest(1)[0].generation) == (["set", "started"], 1)
    with up(settings, COMMITTED):
        pass
    assert kinds(registry) == ["set", "started", "canary"]
    with up(settings) as client:  # it serves the generation of which the killed one knew nothing
        found = client.active_encoder()
        assert (found.encoder.generation, found.canary and found.canary.encoder) == (2, "bees@1")
        prefer_the_canary(client)
        wait_until(lambda: client.active_encoder().encoder.name == "bees")
    assert kinds(registry) == ["set", "started", "canary", "promoted"]
    assert [each.reason for each in registry.activations.newest(9)] == ["continuous", "canary", "start"]
    assert len(registry.jobs.all()) == 1
