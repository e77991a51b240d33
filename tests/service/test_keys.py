"""Keys over HTTP and by the command line: made, listed, held to their limits, revoked; and what a refusal says."""

import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.client import ApiError
from app.keys.ring import FRESH_S
from app.keys.tokens import make_token
from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import Service, environment, process, running, wait_until
from tests.service.keys import SERVICE_KEY, as_bearer, holding, refused


def settings_in(folder: Path, seeded: Path, tiny: Path, **more: object) -> Settings:
    copy_tree(seeded, folder / "data")
    plain = Settings(data_dir=folder / "data", passage_encoder=str(tiny), trainer=False, threads=1)
    return plain.model_copy(update=more)


@pytest.fixture(scope="module")
def locked(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(settings_in(tmp_path_factory.mktemp("keys"), seeded, tiny, api_key=SERVICE_KEY)) as service:
        yield service


@pytest.fixture
def admin(locked: Service) -> Iterator[httpx.Client]:
    with holding(locked, SERVICE_KEY) as http:
        yield http


def adiabat(settings: Settings, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def test_the_secret_is_shown_once_and_kept_nowhere(locked: Service, admin: httpx.Client) -> None:
    made = admin.post("/keys", json={"name": "once", "scope": "search"})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    key = made.json()["key"]
    assert re.fullmatch(r"adiabat_[0-9a-f]{20}_[\w-]{43}", key)
    secret = key[-43:]
    assert "once" in admin.get("/keys").text
    assert secret not in admin.get("/keys").text + admin.get("/audit").text
    with sqlite3.connect(locked.settings.registry_path) as registry:
        (kept,) = registry.execute("SELECT hash FROM api_keys WHERE name = 'once'").fetchone()
        assert kept.startswith("scrypt$")
        assert secret not in "\n".join(registry.iterdump())


def test_all_that_opens_nothing_is_refused_with_the_same_words(locked: Service) -> None:
    """Missing, wrong, of another secret, revoked, expired, malformed: nothing says which."""
    revoked = locked.client.create_key("gone").key
    locked.client.revoke_key("gone")
    ended = locked.client.create_key("ended", expires_at=time.time() + 0.2).key
    other = locked.client.create_key("other").key
    wait_until(lambda: time.time() > locked.client.keys()[0].created_at + 0.5)
    wrong = other[:-43] + make_token().secret
    seen = set()
    for key in (None, "x", SERVICE_KEY + "x", str(make_token()), wrong, revoked, ended, "adiabat_", "é", other + "x"):
        headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
        answer = httpx.get(f"{locked.url}/encoders", headers=headers, trust_env=False)
        assert refused(answer) == (401, "unauthorized"), key
        assert answer.headers["www-authenticate"] == "Bearer"
        seen.add(answer.json()["detail"])
    assert len(seen) == 1
    for scheme in ("Basic", "bearer"):
        answer = httpx.get(f"{locked.url}/encoders", headers={"Authorization": f"{scheme} {other}"}, trust_env=False)
        assert answer.status_code == (200 if scheme == "bearer" else 401)


def test_a_revoked_key_opens_nothing_from_the_next_request_on(locked: Service, admin: httpx.Client) -> None:
    with holding(locked, locked.client.create_key("brief").key) as http:
        for _ in range(3):  # remembered by now
            assert http.get("/encoders").status_code == 200
        assert admin.delete("/keys/brief").status_code == 204
        assert http.get("/encoders").status_code == 401
    assert refused(admin.delete("/keys/brief")) == (404, "key-not-found")
    assert locked.client.create_key("brief").scope == "search"  # the name is free again


def test_what_another_process_revokes_or_makes_is_heard_at_the_next_look(locked: Service) -> None:
    assert FRESH_S < 1  # the promise is a second
    data = ("--data-dir", str(locked.settings.data_dir))
    with holding(locked, locked.client.create_key("elsewhere").key) as http:
        assert http.get("/encoders").status_code == 200
        adiabat(locked.settings, "keys", "revoke", "elsewhere", *data)
        wait_until(lambda: http.get("/encoders").status_code == 401)
    made = adiabat(locked.settings, "keys", "create", "machine", "--scope", "write", *data).stdout.strip()
    with holding(locked, made) as http:
        wait_until(lambda: http.get("/encoders").status_code == 200)
    entry = locked.client.audit(action="key-made").entries[0]
    assert (entry.target, entry.key, entry.peer and entry.peer[:12]) == ("machine", None, "this machine")


def test_a_key_ends_when_it_was_said_to(locked: Service, admin: httpx.Client) -> None:
    ends = time.time() + 1.5
    with holding(locked, locked.client.create_key("mayfly", expires_at=ends).key) as http:
        assert http.get("/encoders").status_code == 200
        wait_until(lambda: time.time() > ends)
        assert http.get("/encoders").status_code == 401
    keys = {key["name"]: key for key in admin.get("/keys").json()["keys"]}
    assert keys["mayfly"]["expired"]
    assert refused(admin.post("/keys", json={"name": "past", "expires_at": 1})) == (422, "invalid-field")


def test_requests_of_a_key_come_as_fast_as_it_may(locked: Service) -> None:
    made = locked.client.create_key("slow", rate_per_s=0.5, burst=3)
    with holding(locked, made.key) as http, holding(locked, SERVICE_KEY) as others:
        answers = [http.get("/version-of-nothing") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [404, 404, 404, 429, 429]
        assert refused(answers[3]) == (429, "rate-limited")
        assert 1 <= int(answers[3].headers["retry-after"]) <= 2
        assert http.get("/version").status_code == 200  # open to all, and so not counted
        assert others.get("/encoders").status_code == 200
        wait_until(lambda: http.get("/encoders").status_code == 200)


def test_requests_of_a_day_are_counted_over_restarts_and_end_with_it(seeded: Path, tiny: Path, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, seeded, tiny, api_key=SERVICE_KEY)
    with running(settings) as service:
        key = service.client.create_key("daily", daily=3).key
        with holding(service, key) as http:
            assert [http.get("/encoders").status_code for _ in range(2)] == [200, 200]
    with running(settings) as service, holding(service, key) as http:
        (found,) = service.client.keys()
        assert (found.used_today, found.used_at is not None) == (2, True)
        assert http.get("/encoders").status_code == 200
        over = http.get("/encoders")
        assert refused(over) == (429, "quota-exceeded")
        assert 0 < int(over.headers["retry-after"]) <= 24 * 3600
        with sqlite3.connect(settings.registry_path) as registry:  # as if it had been yesterday
            registry.execute("UPDATE api_keys SET used_on = used_on - 1, sequence = sequence + 1")
        assert http.get("/version").status_code == 200
    with running(settings) as service, holding(service, key) as http:
        assert http.get("/encoders").status_code == 200


def test_where_there_is_no_other_key_the_first_is_an_admins_and_the_last_admins_stays(
    seeded: Path, tiny: Path, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path, seeded, tiny)
    with running(settings) as service, holding(service, None) as anybody:
        for wanted in ({"scope": "search"}, {"scope": "admin", "expires_at": time.time() + 99}):
            assert refused(anybody.post("/keys", json={"name": "first", **wanted})) == (409, "last-admin-key")
        assert anybody.get("/encoders").status_code == 200  # nothing was locked by the attempt
        key = anybody.post("/keys", json={"name": "first", "scope": "admin"}).json()["key"]
        assert anybody.get("/encoders").status_code == 401
        with holding(service, key) as admin:
            assert admin.post("/keys", json={"name": "second"}).status_code == 201
            assert refused(admin.delete("/keys/first")) == (409, "last-admin-key")
            admin.post("/keys", json={"name": "third", "scope": "admin"})
            assert admin.delete("/keys/first").status_code == 204
            assert admin.get("/encoders").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "Upper"}, "name"),
        ({"name": "ADIABAT_API_KEY"}, "name"),
        ({"name": "x", "scope": "root"}, "scope"),
        ({"name": "x", "rate_per_s": 0}, "rate_per_s"),
        ({"name": "x", "rate_per_s": -1}, "rate_per_s"),
        ({"name": "x", "burst": 2}, "burst"),
        ({"name": "x", "daily": 0}, "daily"),
        ({"name": "x", "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "rate": 2}, "rate"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(admin: httpx.Client, body: dict[str, object], field: str) -> None:
    answer = admin.post("/keys", json=body)
    assert refused(answer) == (422, "invalid-field")
    assert field in answer.json()["detail"]


def test_a_name_is_taken_once(locked: Service, admin: httpx.Client) -> None:
    locked.client.create_key("twice")
    assert refused(admin.post("/keys", json={"name": "twice"})) == (409, "key-exists")


def test_the_command_line_makes_lists_and_revokes(locked: Service) -> None:
    at = ("--url", locked.url, "--api-key", SERVICE_KEY)
    made = adiabat(locked.settings, "keys", "create", "shop", "--rate", "50", "--expires", "90d", *at)
    assert "shop: scope search, 50/s, until 20" in made.stderr
    with holding(locked, made.stdout.strip()) as http:  # the output is the key and nothing else
        assert http.get("/encoders").status_code == 200
        listed = adiabat(locked.settings, "keys", "list", *at).stdout
        assert re.search(r"shop +search +50/s, until 20\S+ \S+ +1 ", listed)
        weak = ("--url", locked.url, "--api-key", made.stdout.strip())
        assert "[missing-scope]" in adiabat(locked.settings, "keys", "list", *weak, code=5).stderr
        assert adiabat(locked.settings, "keys", "revoke", "shop", *at).stdout == "shop revoked\n"
        assert http.get("/encoders").status_code == 401
    assert (
        "neither like 90d" in adiabat(locked.settings, "keys", "create", "x", "--expires", "soon", *at, code=2).stderr
    )
    assert "burst: goes with" in adiabat(locked.settings, "keys", "create", "x", "--burst", "2", *at, code=1).stderr


def test_the_first_key_is_made_on_the_machine_and_opens_a_service_that_binds_to_all(
    seeded: Path, tiny: Path, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path, seeded, tiny)
    said = adiabat(settings, "serve", "--host", "0.0.0.0", "--no-trainer", code=1).stderr
    assert "adiabat keys create admin --scope admin" in said
    key = adiabat(
        settings, "keys", "create", "admin", "--scope", "admin", "--data-dir", str(settings.data_dir)
    ).stdout.strip()
    with process(settings, "--host", "0.0.0.0", "--no-trainer") as (_, client):
        with pytest.raises(ApiError) as without:
            client.encoders()
        assert without.value.status == 401
        found = httpx.get(f"{client.url}/keys", headers=as_bearer(key), trust_env=False)
        assert [each["name"] for each in found.json()["keys"]] == ["admin"]
        # Without any key it stays shut: it is open to more than this machine.
        adiabat(settings, "keys", "revoke", "admin", "--data-dir", str(settings.data_dir))
        wait_until(lambda: httpx.get(f"{client.url}/keys", headers=as_bearer(key), trust_env=False).status_code == 401)
        assert httpx.get(f"{client.url}/encoders", trust_env=False).status_code == 401
