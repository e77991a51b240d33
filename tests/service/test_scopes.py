"""Each call asks for exactly the scope that the table says, and there is no call that the table has not."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.scopes import SCOPES
from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import Service, running
from tests.service.keys import SCOPES as ORDER
from tests.service.keys import SERVICE_KEY, holding, refused

METHODS = {"get", "put", "post", "delete"}
OPEN = {"GET /health/live", "GET /health/ready", "GET /version"}
HIDDEN = {"GET /console/cards/{key}", "GET /console/cards/{key}/{name:path}"}


@pytest.fixture(scope="module")
def locked(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("scopes")
    copy_tree(seeded, folder / "data")
    settings = Settings(
        data_dir=folder / "data", passage_encoder=str(tiny), trainer=False, threads=1, api_key=SERVICE_KEY
    )
    with running(settings) as service:
        yield service


@pytest.fixture(scope="module")
def holders(locked: Service) -> Iterator[dict[str, httpx.Client]]:
    """A program for each scope, and one without a key."""
    with ExitStack() as stack:
        made = {scope: locked.client.create_key(scope, scope=scope).key for scope in ORDER}  # type: ignore[arg-type]
        yield {scope: stack.enter_context(holding(locked, key)) for scope, key in {**made, "": None}.items()}


@pytest.fixture(scope="module")
def described(locked: Service) -> dict[str, dict[str, Any]]:
    """`METHOD /path` of every call, with what the description says of it."""
    paths = httpx.get(f"{locked.url}/openapi.json", trust_env=False).json()["paths"]
    return {
        f"{method.upper()} {path}": call
        for path, item in paths.items()
        for method, call in item.items()
        if method in METHODS
    }


def as_described(call: str) -> str:
    return call.replace(":path}", "}")


def test_the_table_has_every_call_and_none_that_is_not_there(described: dict[str, dict[str, Any]]) -> None:
    assert {as_described(call) for call in SCOPES} - {as_described(call) for call in HIDDEN} == set(described) - OPEN
    assert len(described) > 45


def test_the_description_says_each_calls_scope(described: dict[str, dict[str, Any]]) -> None:
    for call, scope in SCOPES.items():
        if call not in HIDDEN:
            assert described[as_described(call)]["x-scope"] == scope, call
    assert all("x-scope" not in described[call] for call in OPEN)


@pytest.mark.parametrize("call", SCOPES)
def test_each_call_asks_for_exactly_its_scope(holders: dict[str, httpx.Client], call: str) -> None:
    method, _, path = call.partition(" ")
    path = re.sub(r"{[^}]*}", "none", path)
    assert refused(holders[""].request(method, path)) == (401, "unauthorized")
    enough = ORDER.index(SCOPES[call])
    for scope in ORDER[:enough]:
        answer = holders[scope].request(method, path)
        assert refused(answer) == (403, "missing-scope"), scope
        assert answer.json()["needed"] == SCOPES[call]
        assert f"'{SCOPES[call]}'" in answer.json()["detail"]
    for scope in ORDER[enough:]:
        assert holders[scope].request(method, path).status_code not in (401, 403), scope


def test_a_stream_of_passages_asks_for_what_their_upsert_asks_for(holders: dict[str, httpx.Client]) -> None:
    """One address, two routes: the description has only one of them."""
    lines = {"content": b'{"id": "a", "text": "pump"}\n', "headers": {"Content-Type": "application/x-ndjson"}}
    assert refused(holders["search"].post("/passages", **lines)) == (403, "missing-scope")
    assert holders["write"].post("/passages", **lines).json()["embedded"] == 1


def test_a_key_without_the_scope_is_refused_before_its_body_is_looked_at(holders: dict[str, httpx.Client]) -> None:
    broken = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    assert refused(holders["search"].post("/passages", **broken)) == (403, "missing-scope")
    assert refused(holders["write"].post("/passages", **broken)) == (422, "invalid-field")


def test_a_tuning_that_would_switch_asks_for_what_a_switch_asks_for(holders: dict[str, httpx.Client]) -> None:
    body = {"name": "bees", "dataset": "none", "activate": "if-gate-passes"}
    assert refused(holders["write"].post("/tuning-jobs", json=body)) == (403, "missing-scope")
    assert refused(holders["admin"].post("/tuning-jobs", json=body)) == (404, "dataset-not-found")
    assert refused(holders["write"].post("/tuning-jobs", json=body | {"activate": "never"})) == (
        404,
        "dataset-not-found",
    )


def test_what_orchestrators_and_browsers_ask_first_asks_for_no_key(holders: dict[str, httpx.Client]) -> None:
    for path in ("/health/live", "/health/ready", "/version", "/docs", "/openapi.json", "/console/login"):
        assert holders[""].get(path).status_code == 200, path


def test_the_services_own_key_may_do_everything(locked: Service) -> None:
    found = locked.client.keys()
    assert {key.name for key in found} >= set(ORDER)
    assert locked.client.audit().entries
