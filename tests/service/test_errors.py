"""docs/errors.md lists every slug there is, and every slug can be met."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import idempotency
from app.api.problems import STATUS
from app.assembly import assemble
from app.cli.datasets import zip_folder
from app.errors import AdiabatError, DataDirLocked, IndexSpaceMismatch
from app.keys import KeyRing
from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.service import encoders

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
KEY = "correct horse battery"
BASES = {"error", "not-found"}  # only what is below them is ever raised
NO_ERROR_CLASS = {"no-such-route": 404, "method-not-allowed": 405, "internal-error": 500, "http-error": 400}
NEVER_OVER_HTTP = {"data-dir-locked", "index-space-mismatch", "tuning-failed"}
MAX_BODY = 200_000


def classes(kind: type[AdiabatError] = AdiabatError) -> Iterator[type[AdiabatError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from classes(below)


STATUS_OF = NO_ERROR_CLASS | {
    kind.slug: next(STATUS[each] for each in kind.__mro__ if each in STATUS)
    for kind in classes()
    if kind.slug not in BASES | NEVER_OVER_HTTP
}


def test_the_document_lists_every_slug_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {slug: int(status) for slug, status in rows} == STATUS_OF
    assert all(f"`{slug}`" in DOCUMENT.read_text() for slug in NEVER_OVER_HTTP)


class World:
    """A service that holds two encoders, a dataset and a job that waits for ever: no trainer runs."""

    def __init__(self, service: Service, tiny: Path, folder: Path) -> None:
        self.service = service
        self.tiny = tiny
        self.folder = folder
        self.http = httpx.Client(base_url=service.url, trust_env=False, headers={"Authorization": f"Bearer {KEY}"})
        client = service.client
        client.upsert_passages({"id": f"p{n}", "text": f"water pump {n}"} for n in range(20))
        client.register_encoder("bees", path=str(encoders.near(tiny, folder / "bees")))
        write_dataset(folder / "pumps")
        client.put_dataset("pumps", zip_folder(folder / "pumps", folder / "pumps.zip"))
        self.job = client.create_tuning_job("tuned", "pumps").id

    def encoder(self, name: str, **fields: object) -> httpx.Response:
        body = {"name": name, "source": {"path": str(self.folder / name)}, **fields}
        return self.http.post("/encoders", json=body, timeout=60)


def write_dataset(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    queries = "".join(json.dumps({"_id": f"q{n}", "text": f"which pump is {n}"}) + "\n" for n in range(4))
    (folder / "queries.jsonl").write_text(queries)
    for split in ("train", "dev"):
        (folder / "qrels" / f"{split}.tsv").write_text("".join(f"q{n}\tp{n}\t1\n" for n in range(4)))


@pytest.fixture(scope="module")
def world(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    copy_tree(seeded, folder / "data")
    sources = folder / "sources"
    sources.mkdir()
    settings = Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        trainer=False,
        source_dirs=(sources,),
        threads=1,
        api_key=KEY,
        max_waiting=16,
        max_body_bytes=MAX_BODY,
        request_timeout_s=3,
        load_on_demand=False,
    )
    with running(settings) as service:
        made = World(service, tiny, sources)
        yield made
        made.http.close()


def _broken(world: World) -> httpx.Response:
    encoders.near(world.tiny, world.folder / "hurt", seed=7)
    assert world.encoder("hurt").status_code == 201
    for weights in world.service.parts.artifacts.files("hurt@1").own.rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-64] + bytes(64))
    return world.http.put("/active-encoder", json={"name": "hurt"})


def _refused(world: World) -> httpx.Response:
    encoders.near(world.tiny, world.folder / "far", scale=3.0)
    return world.encoder("far")


def _not_resident(world: World) -> httpx.Response:
    encoders.near(world.tiny, world.folder / "cold", seed=11)
    assert world.encoder("cold").status_code == 201
    return world.http.post("/search", json={"query": "x", "encoder": "cold"})


def _key_in_use(world: World) -> httpx.Response:
    """Of two at once the second waits for the first; here it is told at once to come again."""
    encoders.near(world.tiny, world.folder / "slow", seed=9)
    patience, idempotency.WAIT_S = idempotency.WAIT_S, 0.0
    try:
        with ThreadPoolExecutor(2) as callers:
            answers = [each.result() for each in [callers.submit(_keyed, world, "slow", "one") for _ in range(2)]]
    finally:
        idempotency.WAIT_S = patience
    return max(answers, key=lambda answer: answer.status_code)


def _key_reused(world: World) -> httpx.Response:
    assert _keyed(world, "bees", "reused").is_success
    return _keyed(world, "bees", "reused", description="another request")


def _keyed(world: World, name: str, key: str, **fields: object) -> httpx.Response:
    body = {"name": name, "source": {"path": str(world.folder / name)}, **fields}
    return world.http.post("/encoders", json=body, headers={"Idempotency-Key": key}, timeout=60)


def _finished(world: World) -> httpx.Response:
    job = world.service.client.create_tuning_job("other", "pumps").id
    world.http.post(f"/tuning-jobs/{job}/cancel")
    wait_until(lambda: world.service.client.tuning_job(job).status == "cancelled")  # it may just be prepared
    return world.http.post(f"/tuning-jobs/{job}/cancel")


def _bug(world: World) -> httpx.Response:
    """No call is known to end in one, so a part is taken away."""
    info = type(world.service.parts.store).info
    try:
        type(world.service.parts.store).info = None  # type: ignore[method-assign,assignment]
        return world.http.get("/health/ready")
    finally:
        type(world.service.parts.store).info = info  # type: ignore[method-assign]


def _wordless(world: World) -> httpx.Response:
    """As a collection is that was made before words were kept (tests/service/test_modes.py has a real one)."""
    with world.service.parts.store._slot.reading() as live:  # type: ignore[attr-defined]
        live.lexical = False
        try:
            return world.http.post("/search", json={"query": "water", "mode": "lexical"})
        finally:
            live.lexical = True


def _with_key(world: World, name: str, limits: dict[str, Any], method: str, path: str) -> httpx.Response:
    """The answer to the second request of a new key."""
    key = world.http.post("/keys", json={"name": name, **limits}).json()["key"]
    with httpx.Client(base_url=world.service.url, trust_env=False, headers={"Authorization": f"Bearer {key}"}) as http:
        assert http.get("/encoders").status_code == 200
        return http.request(method, path)


def _last_admin(world: World) -> httpx.Response:
    """As where ADIABAT_API_KEY is not set."""
    needs_admin = KeyRing.needs_admin
    try:
        KeyRing.needs_admin = True  # type: ignore[method-assign,assignment]
        return world.http.post("/keys", json={"name": "first"})
    finally:
        KeyRing.needs_admin = needs_admin  # type: ignore[method-assign]


def _too_slow(world: World) -> httpx.Response:
    """A body of which only half comes."""
    head = f"POST /search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9\r\n\r\n"
    with socket.create_connection((world.http.base_url.host, world.http.base_url.port or 80), timeout=60) as connection:
        connection.sendall(head.encode() + b"{")
        answer = HTTPResponse(connection)
        answer.begin()
        return httpx.Response(answer.status, content=answer.read())


def _not_text(world: World) -> httpx.Response:
    return world.http.post("/search", content=b'{"query": "\xff"}', headers={"Content-Type": "application/json"})


SCENES: dict[str, Callable[[World], httpx.Response]] = {
    "invalid-field": lambda w: w.http.post("/search", json={"query": "x", "limit": 0}),
    "bad-input": lambda w: w.http.post(
        "/encoders", content=b"--x\r\nbroken", headers={"Content-Type": "multipart/form-data"}
    ),
    "unsupported-filter": lambda w: w.http.post("/search", json={"query": "x", "filter": {"mustt": []}}),
    "bad-dataset": lambda w: w.http.put("/datasets/x", content=b"x", headers={"Content-Type": "application/zip"}),
    "source-refused": lambda w: w.http.post("/encoders", json={"name": "x", "source": {"path": "/"}}),
    "idempotency-key-reused": _key_reused,
    "missing-scope": lambda w: _with_key(w, "weak", {"scope": "search"}, "DELETE", "/encoders/none@1"),
    "rate-limited": lambda w: _with_key(w, "slow", {"rate_per_s": 0.01}, "GET", "/encoders"),
    "quota-exceeded": lambda w: _with_key(w, "poor", {"daily": 1}, "GET", "/encoders"),
    "key-not-found": lambda w: w.http.delete("/keys/none"),
    "key-exists": lambda w: [w.http.post("/keys", json={"name": "twice"}) for _ in range(2)][1],
    "last-admin-key": _last_admin,
    "too-slow": _too_slow,
    # Barely: what a client still sends when it is refused may cost it the answer.
    "headers-too-large": lambda w: w.http.get("/version", headers={"X-Long": "x" * 32_768}),
    "unauthorized": lambda w: httpx.get(f"{w.service.url}/encoders", trust_env=False),
    "cross-site": lambda w: w.http.post("/search", json={"query": "x"}, headers={"Sec-Fetch-Site": "cross-site"}),
    "no-such-route": lambda w: w.http.get("/nowhere"),
    "encoder-not-found": lambda w: w.http.get("/encoders/nobody"),
    "passage-not-found": lambda w: w.http.get("/passages/none"),
    "job-not-found": lambda w: w.http.get("/tuning-jobs/none"),
    "evaluation-not-found": lambda w: w.http.get("/evaluations/none"),
    "judgment-not-found": lambda w: w.http.delete("/judgments/none"),
    "experiment-not-found": lambda w: w.http.get("/experiments/1"),
    "route-not-found": lambda w: w.http.get("/routes/none"),
    "search-not-found": lambda w: w.http.delete(f"/queries/{'0' * 32}"),
    "search-not-logged": lambda w: w.http.post(
        "/feedback", json={"search_id": "0" * 32, "clicks": [{"passage_id": "p1", "position": 1}]}
    ),
    "dataset-not-found": lambda w: w.http.get("/datasets/none"),
    "method-not-allowed": lambda w: w.http.put("/search"),
    "conflict": lambda w: w.http.post("/active-encoder/rollback"),
    "encoder-refused": _refused,
    "encoder-broken": _broken,
    "encoder-not-resident": _not_resident,
    "no-lexical-side": _wordless,
    "encoder-in-use": lambda w: w.http.delete("/encoders/base@1"),
    "dataset-in-use": lambda w: w.http.delete("/datasets/pumps"),
    "dataset-built-in": lambda w: w.http.delete("/datasets/judgments"),
    "job-finished": _finished,
    "job-not-resumable": lambda w: w.http.post(f"/tuning-jobs/{w.job}/resume"),
    "idempotency-key-in-use": _key_in_use,
    "stale-generation": lambda w: w.http.put("/active-encoder", json={"name": "bees"}, headers={"If-Match": '"99"'}),
    "too-large": lambda w: w.http.post("/search", content=b" " * (MAX_BODY + 1)),
    "overloaded": lambda w: w.http.post("/search/batch", json={"queries": [f"x{n}" for n in range(17)]}),
    "unavailable": lambda w: w.http.put("/active-encoder", json={"name": "bees", "timeout_s": 1e-6}),
    "internal-error": _bug,
    "http-error": _not_text,
}


@pytest.mark.parametrize("slug", SCENES)
def test_every_slug_can_be_met(world: World, slug: str) -> None:
    answer = SCENES[slug](world)
    assert answer.json()["type"] == f"urn:adiabat:problem:{slug}", answer.text
    assert answer.status_code == STATUS_OF[slug]
    assert len(answer.json()["detail"]) > 20


def test_no_slug_is_left_out() -> None:
    assert set(SCENES) == set(STATUS_OF)


def test_a_second_service_on_the_same_folder_names_who_holds_it(service: Service) -> None:
    with ExitStack() as stack, pytest.raises(DataDirLocked, match="is in use by process") as refused:
        assemble(service.settings, stack)
    assert refused.value.slug == "data-dir-locked"


def test_another_passage_encoder_names_what_differs(settings: Settings, tiny: Path, tmp_path: Path) -> None:
    other = encoders.near(tiny, tmp_path / "other")
    changed = settings.model_copy(update={"passage_encoder": str(other)})
    with ExitStack() as stack, pytest.raises(IndexSpaceMismatch, match="passage encoder") as refused:
        assemble(changed, stack)
    assert refused.value.slug == "index-space-mismatch"
