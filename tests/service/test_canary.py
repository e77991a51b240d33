"""A canary: the same requests every time, one generation with the active encoder, and ended by what comes next."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AdiabatClient, ApiError
from app.settings import Settings
from tests.conftest import Service, running
from tests.service import encoders
from tests.service.keys import SERVICE_KEY
from tests.service.test_cli import adiabat
from tests.service.test_switching import PASSAGES

BY = "X-User-Id"
USERS = [f"user {n}" for n in range(400)]


@pytest.fixture
def stocked(service: Service, tiny: Path, sources: Path) -> Service:
    service.client.upsert_passages(PASSAGES)
    for name, seed in (("bees", 1), ("wasps", 2)):
        folder = encoders.near(tiny, sources / name, scale=0.1, seed=seed)
        service.client.register_encoder(name, path=str(folder), force=True)
    return service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False) as opened:
        yield opened


def asked(http: httpx.Client, user: str | None = None, **fields: Any) -> dict[str, Any]:
    headers = {} if user is None else {BY: user}
    answer = http.post("/search", json={"query": "engine", "limit": 2, **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def taken(http: httpx.Client, name: str = "bees") -> set[str]:
    """The users whom the canary answers."""
    return {user for user in USERS if asked(http, user)["encoder"]["name"] == name}


def refused(service: Service, body: dict[str, Any]) -> tuple[int, str, str]:
    answer = httpx.put(f"{service.url}/active-encoder", json=body, trust_env=False)
    return answer.status_code, answer.json()["type"].rpartition(":")[2], answer.json()["detail"]


def test_about_so_many_percent_get_the_canary_and_the_same_ones_every_time(
    stocked: Service, http: httpx.Client
) -> None:
    client = stocked.client
    told = client.start_canary("bees", 20, sticky_by=BY)
    assert (told.encoder.name, told.encoder.generation) == ("base", 2)
    assert told.canary is not None
    assert (told.canary.encoder, told.canary.percent, told.canary.sticky_by) == ("bees@1", 20, BY)
    assert client.active_encoder().canary == told.canary
    few = taken(http)
    assert 0.12 < len(few) / len(USERS) < 0.28
    assert taken(http) == few
    client.start_canary("bees", 50, sticky_by=BY)
    half = taken(http)
    assert few < half  # nobody who had it is sent back
    assert 0.4 < len(half) / len(USERS) < 0.6
    client.start_canary("wasps", 20, sticky_by=BY)
    assert taken(http, "wasps") != few  # another encoder, other users


def test_an_answer_says_which_rule_chose_its_encoder_and_who_names_one_gets_it(
    stocked: Service, http: httpx.Client
) -> None:
    assert asked(http)["rule"] == "active"
    stocked.client.start_canary("bees", 50, sticky_by=BY)
    user = min(taken(http))
    answer = asked(http, user)
    assert (answer["rule"], answer["encoder"]["name"], answer["encoder"]["generation"]) == ("canary", "bees", 2)
    assert answer["hits"] == asked(http, encoder="bees@1")["hits"]
    assert (asked(http)["rule"], asked(http)["encoder"]["name"]) == ("active", "base")
    assert (asked(http, user, encoder="base")["rule"], asked(http, user, encoder="wasps")["rule"]) == ("named", "named")
    batch = http.post("/search/batch", json={"queries": ["engine", "oil"]}, headers={BY: user}).json()
    assert (batch["rule"], batch["encoder"]["name"]) == ("canary", "bees")
    got = http.get("/search", params={"q": "engine"}, headers={BY: user}).json()
    assert got["rule"] == "canary"
    compared = asked(http, user, compare_to="base")
    assert (compared["encoder"]["name"], compared["compared_to"]["encoder"]["name"]) == ("bees", "base")
    first = asked(http, user, limit=1)
    stocked.client.rollback()
    second = asked(http, user, limit=1, cursor=first["next_cursor"])  # a page stays with the encoder of the first
    assert (second["encoder"]["name"], second["encoder"]["generation"]) == ("bees", 2)


def test_whatever_comes_next_ends_it_and_the_history_tells(stocked: Service, http: httpx.Client) -> None:
    client = stocked.client
    client.activate("wasps")
    client.start_canary("bees", 50, sticky_by=BY)
    assert client.start_canary("bees", 50, sticky_by=BY).encoder.generation == 3  # what is so already changes nothing
    back = client.rollback()
    assert (back.encoder.name, back.encoder.generation, back.canary) == ("wasps", 4, None)
    assert back.previous is not None
    assert back.previous.name == "base"
    assert taken(http) == set()
    client.start_canary("bees", 50, sticky_by=BY)
    same = client.activate("wasps")
    assert (same.encoder.generation, same.canary) == (6, None)
    client.start_canary("bees", 50, sticky_by=BY)
    promoted = client.activate("bees")
    assert (promoted.encoder.name, promoted.canary) == ("bees", None)
    assert promoted.swap.load_ms == 0  # it was in memory
    assert client.rollback().encoder.name == "wasps"
    told = [(each.encoder, each.reason, each.canary and each.canary.encoder) for each in client.history()]
    assert told[::-1] == [
        ("base@1", "start", None),
        ("wasps@1", "activate", None),
        ("wasps@1", "canary", "bees@1"),
        ("wasps@1", "rollback", None),
        ("wasps@1", "canary", "bees@1"),
        ("wasps@1", "activate", None),
        ("wasps@1", "canary", "bees@1"),
        ("bees@1", "activate", None),
        ("wasps@1", "rollback", None),
    ]


def test_what_is_no_canary_is_refused_and_nothing_changes(stocked: Service) -> None:
    good = {"name": "bees", "percent": 10, "sticky_by": BY}
    for wrong, word in (
        ({"percent": 101}, "percent"),
        ({"percent": 0}, "percent"),
        ({"percent": "many"}, "percent"),
        ({"sticky_by": "a header"}, "must be 'key' or the name of a header"),
        ({"sticky_by": "key"}, "'key' (the default) tells nobody apart where the service asks"),
        ({"name": "Bees!"}, "name"),
    ):
        status, slug, said = refused(stocked, {"canary": good | wrong})
        assert (status, slug) == (422, "invalid-field"), said
        assert word in said
    assert "one of them" in refused(stocked, {"name": "bees", "canary": good})[2]
    assert "one of them" in refused(stocked, {})[2]
    assert refused(stocked, {"canary": good | {"name": "nobody"}})[:2] == (404, "encoder-not-found")
    assert refused(stocked, {"canary": good | {"name": "base"}})[:2] == (409, "conflict")
    stocked.client.delete_encoder("wasps@1")
    assert "was deleted" in refused(stocked, {"canary": good | {"name": "wasps", "version": 1}})[2]
    weights = next(stocked.settings.artifacts_dir.glob("bees@1/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-64] + bytes(64))
    assert refused(stocked, {"canary": good})[:2] == (409, "encoder-broken")
    with pytest.raises(ApiError) as stale:
        stocked.client.start_canary("bees", 10, sticky_by=BY, if_generation=9)
    assert stale.value.slug == "stale-generation"
    assert [each.generation for each in stocked.client.history()] == [1]


def test_a_canary_is_kept_as_long_as_it_answers(stocked: Service) -> None:
    client = stocked.client
    client.start_canary("bees", 10, sticky_by=BY)
    with pytest.raises(ApiError, match="bees@1 is the canary encoder") as caught:
        client.delete_encoder("bees@1")
    assert caught.value.slug == "encoder-in-use"
    client.activate("base")
    client.delete_encoder("bees@1")


@pytest.mark.parametrize("settings", [{"api_key": SERVICE_KEY}], indirect=True)
def test_keys_are_told_apart(stocked: Service) -> None:
    stocked.client.start_canary("bees", 50)
    rules = []
    for n in range(24):
        with AdiabatClient(stocked.url, stocked.client.create_key(f"shop-{n}").key) as shop:
            first, second = shop.search("engine"), shop.search("oil")
        assert (first.rule, first.encoder) == (second.rule, second.encoder)
        rules.append(first.rule)
    assert set(rules) == {"active", "canary"}


def test_it_is_there_again_after_a_restart_and_left_out_where_it_is_gone(
    settings: Settings, tiny: Path, sources: Path
) -> None:
    encoders.near(tiny, sources / "bees", scale=0.1)
    with running(settings) as service:
        service.client.upsert_passages(PASSAGES)
        service.client.register_encoder("bees", path="bees", force=True)
        told = service.client.start_canary("bees", 50, sticky_by=BY)
    with running(settings) as service:
        assert service.client.active_encoder().canary == told.canary
        assert service.client.active_encoder().encoder == told.encoder
    weights = next(settings.artifacts_dir.glob("bees@1/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-64] + bytes(64))
    with running(settings) as service:
        active = service.client.active_encoder()
        assert (active.encoder.name, active.encoder.generation, active.canary) == ("base", 3, None)
        assert "bees@1 could not be loaded, serving base@1" in (active.fallback_reason or "")
        assert [each.reason for each in service.client.history()] == ["fallback", "canary", "start"]
        assert service.client.encoder("bees@1").state == "broken"


def test_no_request_fails_or_mixes_encoders_while_the_split_changes(stocked: Service) -> None:
    """Every answer is wholly of the encoder it names, and of a generation in which that one answered."""
    client = stocked.client
    with httpx.Client(base_url=stocked.url, trust_env=False) as http:
        scores = {name: asked(http, encoder=name)["hits"][0]["score"] for name in ("base", "bees", "wasps")}
    assert len({round(score, 5) for score in scores.values()}) == 3
    done, answers = threading.Event(), []

    def ask(user: str) -> None:
        with httpx.Client(base_url=stocked.url, trust_env=False) as http:
            while not done.is_set():
                answers.append(asked(http, user))

    with ThreadPoolExecutor(4) as callers:
        asking = [callers.submit(ask, user) for user in USERS[:4]]
        for n in range(12):
            client.start_canary(("bees", "wasps")[n % 2], 50, sticky_by=BY)
        client.activate("bees")
        done.set()
        for each in asking:
            each.result()
    allowed: dict[int, set[str]] = {}
    for each in client.history():
        allowed[each.generation] = {each.encoder, *([each.canary.encoder] if each.canary else [])}
    assert answers
    for answer in answers:
        used = answer["encoder"]
        assert answer["hits"][0]["score"] == pytest.approx(scores[used["name"]], abs=1e-5)
        assert f"{used['name']}@1" in allowed[used["generation"]]


def test_the_command_starts_it_and_the_history_shows_it(stocked: Service) -> None:
    said = adiabat(stocked, "encoders", "activate", "bees", "--canary", "12.5", "--sticky-by", BY)
    assert said.splitlines()[-1] == f"bees@1 answers 12.5% of the searches, by {BY}"
    assert "canary (12.5% bees@1)" in adiabat(stocked, "encoders", "history")
