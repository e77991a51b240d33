"""`/experiments` over HTTP: who asked what of which encoder, and what was clicked."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from app.client import ApiError
from app.passages.fusion import DEPTH
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.service import encoders
from tests.service.test_canary import BY, USERS, asked
from tests.service.test_cli import adiabat
from tests.service.test_tuning_jobs import passages
from tests.test_webhook import SECRET, receiving

ON = {"query_log": 1.0}
logging = pytest.mark.parametrize("settings", [ON], indirect=True)


@pytest.fixture
def stocked(service: Service, tiny: Path, sources: Path) -> Service:
    service.client.upsert_passages(passages())
    folder = encoders.near(tiny, sources / "bees", scale=0.5, seed=1)
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
    client.start_canary("bees", 30, sticky_by=BY, rules=False)
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
    assert (found.verdict, found.ended_by) == ("worse", None)
    stocked.parts.experiments.look()
    decided = client.experiment(2).decided
    assert decided is not None
    assert (decided.verdict, decided.alpha) == ("worse", 0.05)
    assert 100 < decided.requests <= len(USERS)
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


@logging
def test_both_answer_an_interleaved_search_and_its_clicks_say_whose_are_preferred(
    stocked: Service, http: httpx.Client
) -> None:
    client = stocked.client
    stocked.client.start_canary("bees", 100, interleave=True, rules=False)  # everybody: nobody need be told apart
    alone = {name: asked(http, encoder=name, limit=5)["hits"] for name in ("base", "bees")}
    scores = {name: {hit["id"]: hit["score"] for hit in hits} for name, hits in alone.items()}
    for user in (None, *USERS[:60]):
        answer = asked(http, user, limit=5)
        assert (answer["rule"], answer["encoder"]["name"], answer["interleaved_with"]["name"]) == (
            "interleaved",
            "base",
            "bees",
        )
        assert "teams" not in answer
        search = client.queries(limit=1).searches[0]
        assert (search.encoder, search.rule, len(search.teams or "")) == ("base@1", "interleaved", 5)
        for hit, team in zip(answer["hits"], search.teams or "", strict=True):
            assert hit["score"] == scores["bees" if team == "c" else "base"][hit["id"]]
        click = [
            (hit["id"], place)
            for place, (hit, team) in enumerate(zip(answer["hits"], search.teams or "", strict=True), 1)
            if team == "c"
        ]
        if click:
            client.feedback(str(answer["search_id"]), click[:1])
    found = client.experiment(2)
    assert found.active_arm.requests == found.canary_arm.requests == 61
    assert (found.active_arm.wins, found.canary_arm.clicked, found.verdict) == (0, 61, "better")
    assert (found.canary.interleave, found.canary_arm.wins) == (True, 61)
    assert found.effect is not None
    assert found.effect.estimate == 1
    assert "bees@1 won 61 and base@1 0" in found.said


@logging
def test_pages_of_an_interleaved_search_go_on_as_they_began(stocked: Service, http: httpx.Client) -> None:
    stocked.client.start_canary("bees", 50, sticky_by=BY, interleave=True)
    user = next(each for each in USERS if asked(http, each)["rule"] == "interleaved")
    whole = {}
    for number in range(8):
        first = asked(http, user, limit=2)
        if number == 4:
            stocked.client.rollback()
        second = asked(http, user, limit=2, cursor=first["next_cursor"])
        assert second["rule"] == first["rule"]
        ids = [hit["id"] for hit in (*first["hits"], *second["hits"])]
        assert len(set(ids)) == 4
        if number < 5:
            assert second["interleaved_with"] == first["interleaved_with"]
            whole[tuple(ids)] = True
    assert asked(http, user)["rule"] == "active"


def test_what_cannot_be_interleaved_is_answered_by_the_active_encoder(stocked: Service, http: httpx.Client) -> None:
    client = stocked.client
    client.start_canary("bees", 100, interleave=True)
    assert asked(http)["rule"] == "interleaved"
    for fields in ({"compare_to": "bees"}, {"with_query_vector": True}, {"offset": 2}):
        answer = asked(http, **fields)
        assert (answer["rule"], answer["encoder"]["name"]) == ("active", "base")
        assert "interleaved_with" not in answer
    batch = http.post("/search/batch", json={"queries": ["engine"]}).json()
    assert (batch["rule"], batch["encoder"]["name"]) == ("active", "base")
    assert asked(http, encoder="bees")["rule"] == "named"
    again = client.start_canary("bees", 100, interleave=True)
    assert (again.encoder.generation, again.canary is not None and again.canary.interleave) == (2, True)
    said = adiabat(stocked, "encoders", "activate", "bees", "--canary", "30", "--sticky-by", BY, "--interleave")
    assert said.splitlines()[-1] == f"bees@1 answers 30% of the searches, by {BY}, together with it"
    whole = httpx.put(
        f"{stocked.url}/active-encoder", json={"canary": {"name": "bees", "percent": 100}}, trust_env=False
    )
    assert whole.status_code == 422
    assert "activate the encoder, or set interleave" in whole.json()["detail"]


def test_a_canary_that_fails_beside_the_active_encoder_fails_no_search(stocked: Service, http: httpx.Client) -> None:
    stocked.client.start_canary("bees", 100, interleave=True)
    split = stocked.parts.slot.current.split
    assert split is not None
    split.encoder.dispatcher.close()  # as an encoder that was unloaded
    answer = asked(http)
    assert (answer["rule"], answer["encoder"]["name"]) == ("active", "base")
    assert answer["hits"] == asked(http, encoder="base")["hits"]


def look(service: Service) -> None:
    """As the thread does every few seconds."""
    service.parts.experiments.add_seen()
    service.parts.query_log.flush()
    service.parts.experiments.look()


@logging
def test_a_canary_that_is_worse_is_rolled_back_by_its_rules(stocked: Service, http: httpx.Client) -> None:
    client = stocked.client
    told = client.start_canary("bees", 50, sticky_by=BY, rules={"min_requests": 100, "alpha": 0.01})
    assert told.canary is not None
    assert told.canary.rules is not None
    assert (told.canary.rules.alpha, told.canary.rules.errors) == (0.01, 0.02)
    assert client.active_encoder().canary == told.canary
    for user in USERS:
        answer = asked(http, user)
        if answer["rule"] == "active":
            click_first(stocked, answer)
    look(stocked)
    active = client.active_encoder()
    assert (active.encoder.name, active.encoder.generation, active.canary) == ("base", 3, None)
    ended = client.history()[0]
    assert (ended.reason, ended.encoder) == ("rule", "base@1")
    assert (ended.note or "").startswith("Rule clicks: bees@1 had a click in 0.0% of")
    found = client.experiment(2)
    assert (found.ended_by, found.note, found.alpha, found.verdict) == ("rule", ended.note, 0.01, "worse")
    entry = client.audit().entries[0]
    assert (entry.action, entry.generation, entry.detail["note"], entry.key) == ("rolled-back", 3, ended.note, None)
    assert 'adiabat_activations_total{outcome="done",reason="rule"} 1.0' in client.metrics()
    assert "It was ended: Rule clicks" in adiabat(stocked, "experiments", "show", "2")
    assert "rule: Rule clicks" in adiabat(stocked, "encoders", "history")
    look(stocked)
    assert client.active_encoder().encoder.generation == 3


def test_a_canary_that_fails_is_rolled_back_without_a_query_log(stocked: Service, http: httpx.Client) -> None:
    client = stocked.client
    client.start_canary("bees", 50, sticky_by=BY)
    split = stocked.parts.slot.current.split
    assert split is not None
    split.encoder.dispatcher.close()  # as an encoder that was unloaded
    statuses = [http.post("/search", json={"query": user}, headers={BY: user}).status_code for user in USERS[:250]]
    assert set(statuses) == {200, 503}
    look(stocked)
    assert client.history()[0].reason == "rule"
    assert "Rule errors: 100.0% of" in (client.history()[0].note or "")
    assert {asked(http, user)["rule"] for user in USERS[:20]} == {"active"}


@pytest.mark.parametrize("allowed", [0.01, None])
def test_a_canary_whose_scores_lie_elsewhere_is_rolled_back_where_that_is_asked_for(
    stocked: Service, http: httpx.Client, allowed: float | None
) -> None:
    stocked.client.start_canary("bees", 50, sticky_by=BY, rules={"min_requests": 20, "score_shift": allowed})
    for user in USERS[:100]:
        asked(http, user)
    look(stocked)
    ended = stocked.client.history()[0]
    assert ended.reason == ("rule" if allowed else "canary")
    assert (ended.note or "").startswith("Rule score_shift: the best hits score" if allowed else "")


def test_rules_see_of_a_search_what_the_encoder_has_a_part_in(stocked: Service, http: httpx.Client) -> None:
    stocked.client.start_canary("bees", 50, sticky_by=BY)
    stocked.parts.experiments.add_seen()
    nothing = {"must": [{"key": "lang", "match": {"value": "nobody's"}}]}
    for fields in ({"filter": nothing}, {"filter": nothing, "score_threshold": 0.1}, {"offset": 900}, {}):
        for user in USERS[:2]:
            asked(http, user, **fields)
    http.post("/search/batch", json={"queries": ["a", "b"]}, headers={BY: USERS[0]}).raise_for_status()
    seen = stocked.parts.experiments._seen.take().values()
    assert (sum(each.requests for each in seen), sum(each.empty for each in seen)) == (9, 2)
    assert sum(each.scored for each in seen) == 4  # two of the last searches, and of the batch both queries
    # One for each encoder: the others' query was remembered, and a batch tells nothing of one query.
    assert sum(each.timed for each in seen) == 2
    assert all(each.seconds < 5 for each in seen)


def test_pages_of_two_encoders_end_where_both_would_be_asked_for_everything(
    stocked: Service, http: httpx.Client
) -> None:
    stocked.client.start_canary("bees", 100, interleave=True)
    cursor = asked(http, limit=2)["next_cursor"]
    _, *rest = orjson.loads(base64.urlsafe_b64decode(f"{cursor}=="))
    for offset, status in ((DEPTH - 1, 200), (DEPTH, 422)):
        forged = base64.urlsafe_b64encode(orjson.dumps([offset, *rest])).decode()
        body = {"query": "engine", "limit": 2, "cursor": forged.rstrip("=")}
        assert http.post("/search", json=body).status_code == status


def test_a_canary_may_be_left_without_rules(stocked: Service, http: httpx.Client) -> None:
    client = stocked.client
    told = client.start_canary("bees", 50, sticky_by=BY, rules=False)
    assert told.canary is not None
    assert told.canary.rules is None
    split = stocked.parts.slot.current.split
    assert split is not None
    split.encoder.dispatcher.close()
    for user in USERS[:250]:
        http.post("/search", json={"query": user}, headers={BY: user})
    look(stocked)
    assert client.active_encoder().encoder.generation == 2
    for wrong, said in (({"alpha": 0}, "rules.alpha"), ({"min_requests": 1}, "min_requests"), ({"speed": 1}, "speed")):
        with pytest.raises(ApiError, match=said) as caught:
            client.start_canary("bees", 20, sticky_by=BY, rules=wrong)
        assert caught.value.slug == "invalid-field"
    said = adiabat(
        stocked, "encoders", "activate", "bees", "--canary", "20", "--sticky-by", BY, "--rule", "latency=null"
    )
    assert "generation 3" in said
    canary = client.active_encoder().canary
    assert canary is not None
    assert canary.rules is not None
    assert (canary.rules.latency, canary.rules.errors) == (None, 0.02)


def test_the_webhook_is_told_what_was_done(settings: Settings, tiny: Path, sources: Path) -> None:
    encoders.near(tiny, sources / "bees", scale=0.5, seed=1)
    with receiving() as receiver:
        hooked = settings.model_copy(update={"webhook_url": receiver.url, "webhook_secret": SECRET})
        with running(hooked) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
            service.client.upsert_passages(passages())
            service.client.register_encoder("bees", path="bees", force=True)
            service.client.start_canary("bees", 50, sticky_by=BY)
            split = service.parts.slot.current.split
            assert split is not None
            split.encoder.dispatcher.close()
            for user in USERS[:250]:
                http.post("/search", json={"query": user}, headers={BY: user})
            look(service)
            wait_until(lambda: len(receiver.got) == 1)
            note = service.client.history()[0].note
            wait_until(lambda: 'adiabat_webhook_messages_total{outcome="sent"} 1.0' in service.client.metrics())
        ((_, _, body),) = receiver.got
    said = orjson.loads(body)
    assert said["type"] == "canary.rolled-back"
    assert said["data"] == {
        "experiment": 2,
        "active": "base@1",
        "canary": "bees@1",
        "verdict": "worse",
        "said": note,
    }
