"""`/experiments` over HTTP: who asked what of which encoder, and what was clicked."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.client import ApiError
from tests.conftest import Service
from tests.service import encoders
from tests.service.test_canary import BY, USERS, asked
from tests.service.test_cli import adiabat
from tests.service.test_switching import PASSAGES

ON = {"query_log": 1.0}
logging = pytest.mark.parametrize("settings", [ON], indirect=True)


@pytest.fixture
def stocked(service: Service, tiny: Path, sources: Path) -> Service:
    service.client.upsert_passages(PASSAGES)
    folder = encoders.near(tiny, sources / "bees", scale=0.1, seed=1)
    service.client.register_encoder("bees", path=str(folder), force=True)
    return service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False) as opened:
        yield opened


def click_first(service: Service, answer: dict[str, object]) -> None:
    (first, *_) = answer["hits"]  # type: ignore[misc]
    service.client.feedback(str(answer["search_id"]), [(first["id"], 1)])


@logging
def test_a_canary_that_nobody_clicks_on_is_judged_worse(stocked: Service, http: httpx.Client) -> None:
    client = stocked.client
    client.start_canary("bees", 30, sticky_by=BY)
    began = client.experiment(2)
    assert (began.verdict, began.effect, began.canary_arm.requests) == ("too-few", None, 0)
    assert began.said.startswith("Too little to tell yet: 0 requests of 0 users of the active encoder")
    for number, user in enumerate(USERS):
        answer = asked(http, user)
        if answer["rule"] == "active" and number % 4:
            click_first(stocked, answer)
    click_first(stocked, asked(http))  # says nothing of itself: no request of the experiment
    click_first(stocked, asked(http, USERS[0], encoder="bees"))
    found = client.experiment(2)
    assert found.active_arm.requests + found.canary_arm.requests == len(USERS)
    assert (found.active_arm.encoder, found.canary_arm.encoder) == ("base@1", "bees@1")
    assert (found.active_arm.users, found.canary_arm.clicked) == (found.active_arm.requests, 0)
    assert found.active_arm.rate == pytest.approx(0.75, abs=0.07)
    assert found.effect is not None
    assert found.effect.low < found.effect.estimate < found.effect.high < 0
    assert found.effect.p_value < 1e-6
    assert (found.verdict, found.ended_by, found.decided) == ("worse", None, None)
    stocked.parts.experiments.look()
    decided = client.experiment(2).decided
    assert decided is not None
    assert (decided.verdict, decided.requests, decided.alpha) == ("worse", len(USERS), 0.05)
    client.rollback()
    ended = client.experiment(2)
    assert (ended.ended_by, ended.verdict) == ("rollback", "worse")
    assert ended.ended_at is not None
    for search in client.queries(limit=1000).searches:
        client.delete_query(search.search_id)
    assert client.experiment(2) == ended  # what was counted is kept
    assert "bees@1 had a click in 0.0% of" in adiabat(stocked, "experiments", "show", "2")
    assert "worse      ended (rollback)" in adiabat(stocked, "experiments", "list")


@logging
def test_each_generation_with_a_canary_is_one(stocked: Service, http: httpx.Client) -> None:
    client = stocked.client
    assert client.experiments().experiments == []
    for percent in (10, 20, 30):
        client.start_canary("bees", percent, sticky_by=BY)
        asked(http, USERS[0])
    page = client.experiments(limit=2)
    assert [(each.id, each.canary.percent) for each in page.experiments] == [(4, 30), (3, 20)]
    rest = client.experiments(page.next_cursor)
    assert ([each.id for each in rest.experiments], rest.next_cursor) == ([2], None)
    for each in (*page.experiments, *rest.experiments):
        assert each.active_arm.requests + each.canary_arm.requests == 1
    for none in (1, 5):
        with pytest.raises(ApiError, match=f"Generation {none} is no experiment") as caught:
            client.experiment(none)
        assert (caught.value.status, caught.value.slug) == (404, "experiment-not-found")
    (newest, *_) = client.queries().searches
    assert newest.rule in ("active", "canary")
    assert "unit" not in newest.model_dump()
