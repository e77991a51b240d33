"""Routes: what each takes, which rule chose, a history and a way back for each, and what must not go meanwhile."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from app.cli import cli
from app.client import AdiabatClient, ApiError
from app.encoders.loaded import LoadedEncoder
from app.encoders.pool import EncoderPool
from app.encoders.routes import Asked
from app.encoders.slot import Slot
from app.encoders.switching import Switcher
from app.errors import EncoderBroken
from app.passages.disk import copy_tree
from app.registry import EncoderRecord
from app.registry.tables import encoders as encoder_rows
from app.retrieval import Answer, Explained, Query
from app.settings import Settings
from tests.conftest import Service, running
from tests.service import encoders
from tests.service.keys import SERVICE_KEY
from tests.service.test_switching import PASSAGES

DISEASE = {"must": [{"key": "topic", "match": {"value": "disease"}}]}
BY = "X-User-Id"


@pytest.fixture(scope="module")
def prepared(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with passages and two encoders beside the base."""
    folder = tmp_path_factory.mktemp("routes")
    copy_tree(seeded, folder / "data")
    (folder / "sources").mkdir()
    sources = (folder / "sources",)
    plain = Settings(data_dir=folder / "data", passage_encoder=str(tiny), trainer=False, source_dirs=sources, threads=1)
    with running(plain) as service:
        service.client.upsert_passages([each | {"metadata": {"topic": "disease", "year": 1}} for each in PASSAGES])
        for name, seed in (("bees", 1), ("wasps", 2)):
            path = encoders.near(tiny, folder / "sources" / name, scale=0.1, seed=seed)
            service.client.register_encoder(name, path=str(path), force=True)
    return folder / "data"


@pytest.fixture
def settings(prepared: Path, tiny: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    copy_tree(prepared, tmp_path / "data")
    plain = Settings(data_dir=tmp_path / "data", passage_encoder=str(tiny), trainer=False, threads=1)
    return plain.model_copy(update=getattr(request, "param", None))


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


def chosen(answer: dict[str, Any]) -> tuple[str, str | None, str]:
    return answer["rule"], answer.get("route"), answer["encoder"]["name"]


def refused(service: Service, method: str, path: str, **sent: Any) -> tuple[int, str, str]:
    answer = httpx.request(method, f"{service.url}{path}", trust_env=False, **sent)
    assert answer.status_code >= 400
    return answer.status_code, answer.json()["type"].rpartition(":")[2], answer.json()["detail"]


ACTIVE = ("active", None, "base")


def test_a_route_takes_what_names_it(service: Service, http: httpx.Client) -> None:
    made = service.client.set_route("medical", "bees")
    assert made.route is not None
    assert (made.route.encoder, made.generation, made.replicas.live) == ("bees@1", 2, 1)
    answer = asked(http, route="medical")
    assert chosen(answer) == ("route", "medical", "bees")
    assert answer["encoder"]["generation"] == 2
    assert answer["hits"] == asked(http, encoder="bees@1")["hits"] != asked(http)["hits"]
    assert chosen(asked(http)) == ACTIVE
    assert chosen(asked(http, encoder="wasps")) == ("named", None, "wasps")
    batch = {"queries": ["engine", "oil"], "route": "medical"}
    assert chosen(http.post("/search/batch", json=batch).json()) == ("route", "medical", "bees")
    assert chosen(http.get("/search", params={"q": "engine", "route": "medical"}).json()) == (
        "route",
        "medical",
        "bees",
    )
    assert chosen(asked(http, route="medical", mode="hybrid"))[0] == "route"
    compared = asked(http, route="medical", compare_to="base", explain=True)
    assert (compared["encoder"]["name"], compared["compared_to"]["encoder"]["name"]) == ("bees", "base")
    status, slug, said = refused(service, "POST", "/search", json={"query": "engine", "route": "legal"})
    assert (status, slug) == (404, "route-not-found")
    assert "medical" not in said  # names of routes may be customers'
    for beside, word in (
        ({"mode": "lexical"}, "mode lexical"),
        ({"encoder": "wasps"}, "route: and encoder both say who answers"),
        ({"cursor": "x"}, "leave out offset, encoder and route"),
    ):
        sent: dict[str, Any] = {"query": "engine", "route": "medical", **beside}
        assert word in refused(service, "POST", "/search", json=sent)[2]
    assert "both say who answers" in refused(service, "POST", "/search/batch", json=batch | {"encoder": "wasps"})[2]


@pytest.mark.parametrize("settings", [{"query_log": 1.0}], indirect=True)
def test_pages_go_on_as_the_first_one_was_chosen(service: Service, http: httpx.Client) -> None:
    client = service.client
    client.set_route("medical", "bees", base_languages=["zh"])
    pages = {lang: asked(http, route="medical", lang=lang, limit=1, explain=True) for lang in ("en", "zh")}
    named = asked(http, encoder="wasps", limit=1)["next_cursor"]
    client.remove_route("medical")
    client.activate("wasps")
    for lang, rule, encoder in (("en", "route", "bees"), ("zh", "route-language", "base")):
        first = pages[lang]
        for rank in (2, 3):
            cursor = first["next_cursor"]
            page = asked(http, limit=1, cursor=cursor, explain=True)
            assert chosen(page) == chosen(first) == (rule, "medical", encoder)
            assert page["encoder"]["generation"] == 2
            assert page["hits"][0]["explain"]["dense"]["rank"] == rank
            first = page
    assert chosen(asked(http, limit=1, cursor=named)) == ("named", None, "wasps")
    assert chosen(asked(http, limit=1, cursor=asked(http, limit=1)["next_cursor"])) == ("active", None, "wasps")
    service.parts.query_log.flush()
    kept = client.queries().searches[::-1]
    assert [(each.rule, each.route, each.offset) for each in kept] == [
        ("route", "medical", 0),
        ("route-language", "medical", 0),
        ("named", None, 0),
        *[(rule, "medical", offset) for rule in ("route", "route-language") for offset in (1, 2)],
        ("named", None, 1),
        ("active", None, 0),
        ("active", None, 1),
    ]


def test_what_is_no_cursor_is_refused(service: Service) -> None:
    with httpx.Client(base_url=service.url, trust_env=False) as http:
        cursor = asked(http, limit=1)["next_cursor"]
    offset, fingerprint, began = orjson.loads(base64.urlsafe_b64decode(f"{cursor}=="))
    assert began == ["base@1", 1, "active", None, None]
    for place, wrong in ((1, 2**40), (1, 0), (2, "whim"), (3, "Medical!"), (3, "a\0"), (3, "a" * 65), (4, ["x"])):
        forged = orjson.dumps([offset, fingerprint, [*began[:place], wrong, *began[place + 1 :]]])
        sent = {"query": "engine", "cursor": base64.urlsafe_b64encode(forged).decode().rstrip("=")}
        assert "is not the next_cursor of an answer" in refused(service, "POST", "/search", json=sent)[2]


def test_an_answer_is_explained_by_the_encoder_that_gave_it(service: Service) -> None:
    """Though its route has another one by then, and the first is deleted."""
    client, retrieval = service.client, service.parts.retrieval
    client.set_route("medical", "bees")
    query = Query(texts=("engine",), limit=3, asked=Asked(route="medical"))

    async def explained() -> tuple[Answer, Explained]:
        answer = await retrieval.search(query)
        client.set_route("medical", "wasps")
        client.delete_encoder("bees@1")
        return answer, await retrieval.explain(query, answer)

    answer, found = asyncio.run(explained())
    assert answer.encoder.record.key == "bees@1"
    assert list(found.dense)[:3] == [hit.id for hit in answer.hits[0]]
    assert [place.score for place in found.dense.values()][:3] == pytest.approx([hit.score for hit in answer.hits[0]])


def test_a_route_takes_what_its_filter_or_language_says_and_the_first_by_name_does(
    service: Service, http: httpx.Client
) -> None:
    set_route = service.client.set_route
    set_route("medical", "bees", match={"filter": {"key": "topic", "value": "disease"}})
    taken, left = ("route", "medical", "bees"), ACTIVE
    condition = DISEASE["must"][0]
    for filter, found in (
        (DISEASE, taken),
        ({"must": condition}, taken),
        ({"must": [{"must": [condition]}], "should": [condition]}, taken),
        ({"should": [condition]}, left),  # hits of another topic may come
        ({"must_not": [condition]}, left),
        ({"must": [{"key": "topic", "match": {"value": "law"}}]}, left),
        ({"must": [{"key": "topic", "match": {"any": ["disease", "law"]}}]}, left),
    ):
        assert chosen(asked(http, filter=filter)) == found, filter
    assert chosen(asked(http, filter=DISEASE, mode="hybrid")) == taken
    assert chosen(asked(http, filter=DISEASE, mode="lexical")) == left  # no encoder has a part
    set_route("medical", "bees", match={"filter": {"key": "year", "value": True}})
    assert chosen(asked(http, filter={"must": [{"key": "year", "match": {"value": 1}}]})) == left
    assert set_route("medical", "bees", match={"filter": {"key": "year", "value": 1}}).generation == 4
    assert chosen(asked(http, filter={"must": [{"key": "year", "match": {"value": 1}}]})) == taken

    set_route("german", "wasps", match={"lang": ["de", "nl"]})
    for lang in ("de", "de-AT", "DE_ch", "nl"):
        assert chosen(asked(http, lang=lang)) == ("route", "german", "wasps")
    for lang in ("den", "en-DE"):
        assert chosen(asked(http, lang=lang)) == left
    batch = http.post("/search/batch", json={"queries": ["engine"], "lang": "de"}).json()
    assert chosen(batch) == ("route", "german", "wasps")
    set_route("medical", "bees", match={"filter": {"key": "topic", "value": "disease"}, "lang": ["de"]})
    assert chosen(asked(http, filter=DISEASE)) == left  # all that it says must hold
    assert chosen(asked(http, filter=DISEASE, lang="de")) == ("route", "german", "wasps")
    service.client.remove_route("german")
    assert chosen(asked(http, filter=DISEASE, lang="de")) == taken


@pytest.mark.parametrize("settings", [{"api_key": SERVICE_KEY}], indirect=True)
def test_a_route_takes_the_searches_of_a_key(service: Service) -> None:
    client = service.client
    client.set_route("shops", "bees", match={"key": ["shop"]})
    assert client.search("engine").rule == "active"
    client.set_route("own", "wasps", match={"key": ["ADIABAT_API_KEY"]})
    assert client.search("engine").route == "own"
    with pytest.raises(ApiError, match="must be the name of an API key, or ADIABAT_API_KEY for the one of that"):
        client.set_route("own", "wasps", match={"key": ["ADIABAT_KEY"]})
    for name, rule in (("shop", "route"), ("library", "active")):
        with AdiabatClient(service.url, client.create_key(name).key) as program:
            assert program.search("engine").rule == rule
            assert program.search("engine", route="shops").rule == "route"
            with pytest.raises(ApiError) as caught:  # it names keys
                program.routes()
            assert caught.value.slug == "missing-scope"


def test_languages_that_stay_on_base_do_within_the_route_alone(service: Service, http: httpx.Client) -> None:
    client = service.client
    client.activate("wasps")
    client.set_route("medical", "bees", base_languages=["zh", "vi"])
    base = asked(http, encoder="base")["hits"]
    answer = asked(http, route="medical", lang="zh-Hant")
    assert chosen(answer) == ("route-language", "medical", "base")
    assert (answer["hits"], answer["encoder"]["generation"]) == (base, 3)
    for lang in ("en", None):
        assert chosen(asked(http, route="medical", lang=lang)) == ("route", "medical", "bees")
    assert chosen(asked(http, lang="zh")) == ("active", None, "wasps")
    assert client.routes()[0].base_languages == ["zh", "vi"]


def test_languages_stay_on_base_that_are_worse_by_the_card(service: Service) -> None:
    client = service.client
    with pytest.raises(ApiError, match="The card of bees@1 has no figures by language") as caught:
        client.set_route("medical", "bees", base_languages_from_card=True)
    assert (caught.value.status, caught.value.slug, client.routes()) == (409, "conflict", [])

    def found(**languages: tuple[int, float, float]) -> dict[str, Any]:
        told = {lang: {"queries": n, "mrr": {"before": a, "after": b}} for lang, (n, a, b) in languages.items()}
        return {"languages": told}

    guards = {"xquad": found(en=(600, 0.9, 0.898), de=(100, 0.5, 0.5), zh=(50, 0.4, 0.39)), "more": found(vi=(9, 1, 0))}
    with service.parts.registry.database.write() as connection:  # as a tuning leaves it
        card = {"dev": found(en=(500, 0.6, 0.7)), "guards": guards, "job": "1"}
        connection.execute(update(encoder_rows).where(encoder_rows.c.name == "bees").values(metrics=card))
    made = client.set_route("medical", "bees", base_languages=["tr", "vi"], base_languages_from_card=True)
    assert made.route is not None
    assert made.route.base_languages == ["tr", "vi", "zh"]
    assert {lang: (each.queries, each.mrr.before, each.mrr.after) for lang, each in (made.from_card or {}).items()} == {
        "vi": (9, 1, 0),
        "zh": (50, pytest.approx(0.4), pytest.approx(0.39)),
    }
    assert client.search("engine", route="medical", lang="zh-Hant").rule == "route-language"
    assert client.search("engine", route="medical", lang="en").rule == "route"
    assert client.set_route("medical", "bees").from_card is None
    set_by_card = ("routes", "set", "medical", "bees", "--base-languages-from-card")
    said = CliRunner().invoke(cli, set_by_card, env={"ADIABAT_URL": service.url}).output.splitlines()
    assert said[0] == "medical has bees@1, generation 4: by name alone; vi, zh on base"
    assert said[2] == "zh: MRR@10 0.4000 on base, 0.3900 with it, over 50 questions"


def test_each_route_has_a_history_and_a_way_back_of_its_own(service: Service, http: httpx.Client) -> None:
    client = service.client
    client.set_route("medical", "bees")
    with pytest.raises(ApiError, match="nothing to roll back to"):
        client.roll_route_back("medical")
    assert client.set_route("medical", "bees").generation == 2  # what is so already changes nothing
    client.activate("wasps")
    client.set_route("legal", "wasps")
    client.set_route("medical", "wasps", match={"lang": ["de"]}, base_languages=["zh"])
    back = client.roll_route_back("medical")
    assert back.route is not None
    assert (back.generation, back.route.encoder, back.route.match, back.route.base_languages) == (6, "bees@1", None, [])
    assert back.swap.load_ms == 0  # it was in memory
    again = client.roll_route_back("medical")
    assert again.route is not None
    assert (again.route.encoder, again.route.base_languages) == ("wasps@1", ["zh"])
    gone = client.remove_route("medical")
    assert (gone.route, gone.generation) == (None, 8)
    assert chosen(asked(http, lang="de")) == ("active", None, "wasps")
    with pytest.raises(ApiError, match="removed in generation 8; POST /routes/medical/rollback"):
        client.route("medical")
    assert client.roll_route_back("medical").route == again.route.model_copy(
        update={"generation": 9, "at": client.route("medical").at}
    )
    found = client.route("medical")
    assert [(each.generation, each.encoder, each.reason) for each in found.history] == [
        (9, "wasps@1", "rollback"),
        (8, None, "removed"),
        (7, "wasps@1", "rollback"),
        (6, "bees@1", "rollback"),
        (5, "wasps@1", "set"),
        (2, "bees@1", "set"),
    ]
    assert [each.name for each in client.routes()] == ["legal", "medical"]
    assert [(each.generation, each.encoder) for each in client.history()] == [(3, "wasps@1"), (1, "base@1")]
    assert client.rollback().encoder.name == "base"  # routes are not in its way
    assert client.ready().encoder is not None
    entries = client.audit(limit=3).entries
    assert [(each.action, each.target, each.generation) for each in entries] == [
        ("rolled-back", "base@1", 10),
        ("route-set", "medical", 9),
        ("route-removed", "medical", 8),
    ]
    further = client.roll_route_back("medical").route  # never to a removal
    assert further is not None
    assert (further.generation, further.encoder, further.base_languages) == (11, "bees@1", [])


def test_a_stale_change_is_refused_and_only_its_own_route_makes_it_stale(service: Service) -> None:
    client = service.client
    client.set_route("medical", "bees", if_generation=0)  # not set yet
    client.set_route("legal", "bees")
    client.set_route("legal", "wasps")
    client.activate("wasps", if_generation=1)  # a route's change is none of the active encoder's
    tag = httpx.get(f"{service.url}/routes/medical", trust_env=False).headers["ETag"]
    assert tag == '"2"'
    for call in (
        lambda: client.set_route("medical", "wasps", if_generation=1),
        lambda: client.roll_route_back("legal", if_generation=3),
        lambda: client.remove_route("medical", if_generation=4),
        lambda: client.set_route("new", "bees", if_generation=4),
    ):
        with pytest.raises(ApiError) as caught:
            call()
        assert (caught.value.status, caught.value.slug) == (412, "stale-generation")
    assert [each.generation for each in client.routes()] == [4, 2]
    client.set_route("medical", "wasps", if_generation=2)
    for method, path, address in (
        ("PUT", "/routes/rollback", "/routes/rollback"),
        ("POST", "/routes/medical/rollback", "/routes/medical"),
        ("POST", "/active-encoder/rollback", "/active-encoder"),
    ):
        sent = {"json": {"encoder": "bees"}} if method == "PUT" else {}
        said = refused(service, method, path, headers={"If-Match": '"newest"'}, **sent)[2]
        assert f"is not an ETag of GET {address}, such as" in said


def test_what_is_no_route_is_refused_and_nothing_changes(service: Service) -> None:
    for sent, word in (
        ({}, "encoder"),
        ({"encoder": "bees", "match": {}}, "at least one of lang, filter and key"),
        ({"encoder": "bees", "match": {"lang": ["de-AT"]}}, "a language without its region"),
        ({"encoder": "bees", "base_languages": ["Chinese!"]}, "a language without its region"),
        ({"encoder": "bees", "match": {"filter": {"key": "year", "value": 1.5}}}, "match.filter.value"),
        ({"encoder": "bees", "match": {"key": ["shop"]}}, "tells nobody apart where the service asks for no key"),
        ({"encoder": "bees", "priority": 1}, "priority"),
    ):
        status, slug, said = refused(service, "PUT", "/routes/medical", json=sent)
        assert (status, slug) == (422, "invalid-field"), said
        assert word in said
    assert refused(service, "PUT", "/routes/Medical!", json={"encoder": "bees"})[0] == 422
    assert refused(service, "PUT", "/routes/medical", json={"encoder": "ants"})[:2] == (404, "encoder-not-found")
    for method, path in (("GET", "/routes/a"), ("DELETE", "/routes/a"), ("POST", "/routes/a/rollback")):
        assert refused(service, method, path)[:2] == (404, "route-not-found")
    weights = next(service.settings.artifacts_dir.glob("bees@1/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-64] + bytes(64))
    assert refused(service, "PUT", "/routes/medical", json={"encoder": "bees"})[:2] == (409, "encoder-broken")
    assert service.client.routes() == []


def test_an_encoder_stays_as_long_as_a_route_needs_it(service: Service) -> None:
    client = service.client
    client.set_route("medical", "bees")
    with pytest.raises(ApiError, match="bees@1 is the encoder of the route 'medical'") as caught:
        client.delete_encoder("bees@1")
    assert caught.value.slug == "encoder-in-use"
    client.set_route("medical", "wasps")
    client.delete_encoder("bees@1")
    with pytest.raises(ApiError, match="bees@1 was deleted"):
        client.roll_route_back("medical")


@pytest.mark.parametrize("settings", [{"max_resident_bytes": 1}], indirect=True)
def test_an_encoder_of_a_route_stays_in_memory(service: Service, http: httpx.Client) -> None:
    client = service.client
    client.set_route("medical", "bees")
    asked(http, encoder="wasps")
    client.activate("wasps")
    client.activate("base")
    client.activate("wasps")
    assert 'adiabat_resident_encoder_bytes{encoder="bees@1"}' in client.metrics()
    client.remove_route("medical")
    asked(http, encoder="base")
    assert 'adiabat_resident_encoder_bytes{encoder="bees@1"}' not in client.metrics()


def test_routes_are_there_again_after_a_restart_and_on_base_where_their_encoder_is_gone(
    settings: Settings,
) -> None:
    with running(settings) as service:
        service.client.activate("wasps")
        service.client.set_route("medical", "bees", match={"lang": ["de"]}, base_languages=["zh"])
        service.client.set_route("other", "wasps")
        told = service.client.routes()
    with running(settings) as service:
        assert service.client.routes() == told
        assert service.client.search("engine", lang="de").encoder.name == "bees"
        assert service.client.search("engine", route="medical", lang="zh").encoder.name == "base"
    weights = next(settings.artifacts_dir.glob("bees@1/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-64] + bytes(64))
    with running(settings) as service:
        client = service.client
        found = client.search("engine", lang="de")
        assert (found.rule, found.encoder.name, found.encoder.generation) == ("route", "base", 5)
        assert client.search("engine", route="other").encoder.name == "wasps"
        active = client.active_encoder()
        assert (active.encoder.name, active.encoder.generation) == ("wasps", 2)
        why = "bees@1 could not be loaded, the route 'medical' has base@1"
        assert why in (active.fallback_reason or "")
        assert any(why in note for note in client.ready().notes)
        route = client.route("medical")
        assert (route.match, route.base_languages) == (told[0].match, ["zh"])
        assert [(each.encoder, each.reason) for each in route.history] == [("base@1", "fallback"), ("bees@1", "set")]
        assert why in (route.history[0].note or "")
        assert client.encoder("bees@1").state == "broken"
        client.activate("base")
        assert why in (client.active_encoder().fallback_reason or "")  # of the route nothing changed
        client.set_route("medical", "wasps")
        assert client.active_encoder().fallback_reason is None


class Elsewhere:
    """Another service on the same registry, which cannot load the encoders that are `lost` to it."""

    def __init__(self, service: Service) -> None:
        self.lost: dict[str, Callable[[], object]] = {}  # by key; called when one is tried
        self.slot = Slot()
        parts = service.parts

        def load(record: EncoderRecord) -> LoadedEncoder:
            if record.key in self.lost:
                self.lost[record.key]()
                raise EncoderBroken(f"{record.key} is not on this disk.")
            return parts.pool.get(record)

        pool = EncoderPool(load, lambda: set(), max_bytes=2**30, observer=parts.metrics)
        self.switcher = Switcher(parts.registry, pool, self.slot, parts.metrics)

    def served(self) -> tuple[str, dict[str, str]]:
        now = self.slot.current
        return now.encoder.record.key, {each.route.name: each.encoder.record.key for each in now.routes}


def test_a_route_that_cannot_be_loaded_holds_up_nothing_else(service: Service) -> None:
    there = Elsewhere(service)
    service.client.set_route("medical", "wasps")
    there.switcher.start()
    there.lost["bees@1"] = lambda: None
    service.client.set_route("medical", "bees")
    service.client.set_route("new", "bees")
    service.client.activate("wasps")
    for _ in range(2):  # it is tried again and again
        with pytest.raises(EncoderBroken, match="The route 'medical' is not taken up, and stays as it was: bees@1"):
            there.switcher.follow()
        assert there.served() == ("wasps@1", {"medical": "wasps@1"})
    assert there.slot.current.reached == 2
    there.switcher.rollback()  # asked of the one that is behind
    assert there.served() == ("base@1", {"medical": "wasps@1"})
    there.switcher.remove_route("new")
    there.lost.clear()
    there.switcher.follow()
    assert there.served() == ("base@1", {"medical": "bees@1"})
    assert there.slot.current.reached == service.parts.registry.activations.generation()


@pytest.mark.parametrize(("lost", "made"), [("wasps@1", 2), ("bees@1", 3)])
def test_who_starts_asks_the_others_for_the_place_that_is_broken(service: Service, lost: str, made: int) -> None:
    service.client.activate("wasps")
    service.client.set_route("medical", "bees")
    service.client.set_route("later", "base")  # in which nobody else need be yet
    there = Elsewhere(service)
    there.lost[lost] = lambda: None
    with pytest.raises(EncoderBroken, match=f"{lost}, generation {made}, cannot be loaded here, and other services"):
        there.switcher.start(lambda generation: generation <= made)
    assert service.client.encoder(lost).state == "ready"


def test_a_fallback_undoes_nothing_that_was_changed_meanwhile(service: Service) -> None:
    service.client.set_route("medical", "bees")
    there = Elsewhere(service)
    there.lost["bees@1"] = lambda: service.client.routes() and service.client.remove_route("medical")
    there.switcher.start()
    assert there.served() == ("base@1", {})
    assert service.client.routes() == []
    assert service.client.encoder("bees@1").state == "ready"


@pytest.mark.parametrize("settings", [{"query_log": 1.0}], indirect=True)
def test_a_canary_goes_on_beside_routes_and_is_of_what_none_takes(service: Service, http: httpx.Client) -> None:
    client = service.client
    began = client.start_canary("wasps", 50, sticky_by=BY, rules=False).encoder.generation
    users = [f"user {n}" for n in range(20)]
    asked_of = [asked(http, user)["rule"] for user in users]
    assert set(asked_of) == {"active", "canary"}
    client.set_route("medical", "bees", match={"filter": {"key": "topic", "value": "disease"}})
    assert {chosen(asked(http, user, filter=DISEASE)) for user in users} == {("route", "medical", "bees")}
    assert [asked(http, user)["rule"] for user in users] == asked_of  # nobody is sent to and fro
    now = client.active_encoder()
    assert (now.encoder.generation, now.canary and now.canary.encoder) == (began, "wasps@1")
    service.parts.query_log.flush()
    assert len(client.queries(limit=100).searches) == 60
    assert [each.route for each in client.queries(limit=40).searches] == [None] * 20 + ["medical"] * 20
    experiment = client.experiment(began or 0)
    assert experiment.ended_by is None
    assert experiment.active_arm.requests + experiment.canary_arm.requests == 40
    client.remove_route("medical")
    ended = client.rollback().encoder.generation
    assert (ended, client.experiment(began or 0).ended_by) == (5, "rollback")


def test_no_request_fails_or_mixes_encoders_while_routes_change(service: Service) -> None:
    """Every answer is wholly of the encoder it names, and of a generation that gave its route this one."""
    client = service.client
    client.set_route("medical", "bees")
    client.set_route("legal", "wasps")
    with httpx.Client(base_url=service.url, trust_env=False) as http:
        scores = {name: asked(http, encoder=name)["hits"][0]["score"] for name in ("base", "bees", "wasps")}
    assert len({round(score, 5) for score in scores.values()}) == 3
    done, answers = threading.Event(), []

    def ask(route: str | None) -> None:
        with httpx.Client(base_url=service.url, trust_env=False) as http:
            while not done.is_set():
                answers.append(asked(http, **({"route": route} if route else {})))

    with ThreadPoolExecutor(3) as callers:
        asking = [callers.submit(ask, route) for route in ("medical", "legal", None)]
        for n in range(12):
            client.set_route("medical", ("wasps", "bees")[n % 2])
            client.activate(("bees", "base")[n % 2])
        done.set()
        for each in asking:
            each.result()
    allowed = {(None, each.generation): each.encoder for each in client.history()}
    for name in ("medical", "legal"):
        allowed |= {(name, each.generation): each.encoder or "" for each in client.route(name).history}
    assert {answer.get("route") for answer in answers} == {"medical", "legal", None}
    for answer in answers:
        used = answer["encoder"]
        assert answer["hits"][0]["score"] == pytest.approx(scores[used["name"]], abs=1e-5)
        assert f"{used['name']}@1" == allowed[answer.get("route"), used["generation"]]


def test_the_commands_set_show_and_take_back(service: Service) -> None:
    def adiabat(*arguments: str) -> str:
        ended = CliRunner().invoke(cli, arguments, env={"ADIABAT_URL": service.url})
        assert ended.exit_code == 0, ended.output
        return ended.output

    said = adiabat("routes", "set", "medical", "bees", "--filter", "topic=disease", "--base-language", "zh")
    assert said.strip() == "medical has bees@1, generation 2: topic=disease; zh on base"
    adiabat("routes", "set", "medical", "wasps", "--filter", '{"key": "year", "value": 1}', "--lang", "de")
    assert adiabat("routes", "list").split(maxsplit=2)[1:] == ["wasps@1", "year=1 and lang de\n"]
    assert "by the route medical" in adiabat("search", "engine", "--route", "medical")
    assert "bees@1, generation 4" in adiabat("routes", "rollback", "medical")
    shown = adiabat("routes", "show", "medical").splitlines()
    assert [line.split()[:3] for line in shown[:2]] == [["4", "bees@1", "rollback"], ["3", "wasps@1", "set"]]
    assert "no route any more, generation 5" in adiabat("routes", "delete", "medical", "--if-generation", "4")


def test_a_filter_that_no_search_can_have_is_refused(service: Service) -> None:
    terms = {"encoder": "base", "match": {"filter": {"key": "not a path!!", "value": "x"}}}
    status, slug, said = refused(service, "PUT", "/routes/medical", json=terms)
    assert (status, slug) == (422, "invalid-field")
    assert "match.filter.key" in said
