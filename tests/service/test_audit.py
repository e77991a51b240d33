"""What the audit log tells of a service's life: every change with its key, and refusals within bounds."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.api import refusals
from app.passages.disk import copy_tree
from app.settings import Settings
from app.wire.audit import AuditEntry
from tests.conftest import Service, environment, running, wait_until
from tests.service import encoders
from tests.service.keys import SERVICE_KEY, holding, refused

FLOOD = 300


@pytest.fixture(scope="module")
def locked(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("audit")
    copy_tree(seeded, folder / "data")
    (folder / "sources").mkdir()
    settings = Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        trainer=False,
        threads=1,
        api_key=SERVICE_KEY,
        source_dirs=(folder / "sources",),
    )
    with running(settings) as service:
        yield service


@pytest.fixture(scope="module")
def ops(locked: Service) -> Iterator[httpx.Client]:
    with holding(locked, locked.client.create_key("ops", scope="admin").key) as http:
        yield http


def newest(service: Service, count: int = 1, **wanted: str) -> list[AuditEntry]:
    return service.client.audit(limit=count, **wanted).entries


def test_every_change_is_told_with_its_key_and_request(locked: Service, ops: httpx.Client, tiny: Path) -> None:
    encoders.near(tiny, locked.settings.source_dirs[0] / "bees")
    questions = "".join(
        json.dumps({"query": f"why {n}", "split": split, "relevant": ["p1"]}) + "\n"
        for n, split in enumerate(("train", "dev", "test"))
    )
    lines = {"content": questions, "headers": {"Content-Type": "application/x-ndjson"}}
    passages = [{"id": f"p{n}", "text": f"because {n}", "metadata": {"lang": "en"}} for n in range(4)]
    ops.post("/passages", json={"passages": passages})
    english = {"must": [{"key": "lang", "match": {"value": "en"}}]}

    done: list[tuple[httpx.Response, str, str]] = []

    def did(answer: httpx.Response, action: str, target: str) -> httpx.Response:
        assert answer.is_success, answer.text
        done.append((answer, action, target))
        return answer

    did(ops.post("/encoders", json={"name": "bees", "source": {"path": "bees"}}), "encoder-registered", "bees@1")
    did(ops.put("/active-encoder", json={"name": "bees"}), "switched", "bees@1")
    did(ops.post("/active-encoder/rollback"), "rolled-back", "base@1")
    did(ops.put("/datasets/d", **lines), "dataset-put", "d")
    job = ops.post("/tuning-jobs", json={"name": "tuned", "dataset": "d"})
    job_id = did(job, "tuning-started", job.json()["id"]).json()["id"]
    did(ops.post(f"/tuning-jobs/{job_id}/cancel"), "tuning-cancelled", job_id)
    measured = ops.post("/evaluations", json={"datasets": ["d"]})
    evaluation_id = did(measured, "evaluation-started", measured.json()["id"]).json()["id"]
    did(ops.post(f"/evaluations/{evaluation_id}/cancel"), "evaluation-cancelled", evaluation_id)
    wait_until(lambda: ops.get(f"/evaluations/{evaluation_id}").json()["status"] == "cancelled")
    wait_until(lambda: ops.get(f"/tuning-jobs/{job_id}").json()["status"] == "cancelled")
    did(ops.delete("/datasets/d"), "dataset-deleted", "d")
    did(ops.delete("/passages/p0"), "passages-deleted", "p0")
    did(ops.post("/passages/delete", json={"ids": ["p1", "none"]}), "passages-deleted", "by ids")
    did(ops.post("/passages/delete", json={"filter": english}), "passages-deleted", "by filter")
    did(ops.post("/keys", json={"name": "brief"}), "key-made", "brief")
    did(ops.delete("/keys/brief"), "key-revoked", "brief")

    told = {entry.request_id: entry for entry in newest(locked, 100)}
    for answer, action, target in done:
        entry = told[answer.headers["x-request-id"]]
        assert (entry.action, entry.target, entry.outcome) == (action, target, "done")
        assert (entry.key, entry.peer) == ("ops", "127.0.0.1")
    by_filter, by_ids = newest(locked, 2, action="passages-deleted")
    assert by_filter.detail == {"deleted": 2, "filter": english}
    assert by_ids.detail == {"deleted": 1, "ids": ["p1", "none"]}
    back, there = newest(locked, 1, action="rolled-back") + newest(locked, 1, action="switched")
    assert (there.generation, back.generation) == (2, 3)
    assert "secret" not in str(told)


def test_what_is_forced_is_told_as_forced(locked: Service, ops: httpx.Client, tiny: Path) -> None:
    encoders.near(tiny, locked.settings.source_dirs[0] / "far", scale=3.0)
    made = ops.post("/encoders", json={"name": "far", "source": {"path": "far"}, "force": True}, timeout=60)
    assert made.json()["admission"] == "forced"
    assert ops.put("/active-encoder", json={"name": "far", "force": True}).is_success
    assert ops.delete("/encoders/bees@1").status_code in (204, 404)
    switched, registered = newest(locked, 1, action="switched")[0], newest(locked, 1, action="encoder-registered")[0]
    assert (registered.target, registered.outcome) == ("far@1", "forced")
    assert (switched.target, switched.outcome) == ("far@1", "forced")
    ops.post("/active-encoder/rollback")


def test_refused_attempts_to_change_something_are_told(locked: Service, ops: httpx.Client) -> None:
    weak = locked.client.create_key("weak").key
    with holding(locked, weak) as searcher, holding(locked, None) as stranger, holding(locked, "wrong") as wrong:
        attempts = [
            (searcher.delete("/encoders/base@1"), "weak", "missing-scope"),
            (ops.delete("/encoders/base@1"), "ops", "encoder-in-use"),
            (
                ops.put("/active-encoder", json={"name": "base"}, headers={"If-Match": '"99"'}),
                "ops",
                "stale-generation",
            ),
            (stranger.post("/keys", json={}), None, "unauthorized"),
            (wrong.delete("/passages/p1"), None, "unauthorized"),
            (stranger.post("/console/login", data={"key": "wrong"}), None, "403"),
        ]
        quiet = [
            searcher.get("/keys"),  # changes nothing
            stranger.post("/search", json={"query": "x"}),
            ops.post("/keys", json={}),  # a typing error
        ]
    by_request = {answer.headers["x-request-id"]: (key, outcome) for answer, key, outcome in attempts}
    wait_until(lambda: by_request.keys() <= {entry.request_id for entry in newest(locked, 50, action="refused")})
    told = {entry.request_id: entry for entry in newest(locked, 50, action="refused")}
    for answer, key, outcome in attempts:
        entry = told[answer.headers["x-request-id"]]
        assert (entry.key, entry.outcome) == (key, outcome)
        assert entry.target == f"{answer.request.method} {answer.request.url.path}"
    assert not told.keys() & {answer.headers["x-request-id"] for answer in quiet}


def test_a_flood_of_refusals_leaves_few_entries_and_their_number(
    seeded: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_tree(seeded, tmp_path / "data")
    settings = Settings(data_dir=tmp_path / "data", passage_encoder=str(tiny), trainer=False, api_key=SERVICE_KEY)
    monkeypatch.setattr(refusals, "PER_S", 10.0)
    with running(settings) as service, holding(service, None) as stranger:
        for _ in range(FLOOD):
            assert stranger.delete("/passages/x").status_code == 401
        written = len(newest(service, 1_000, action="refused"))
        assert written < FLOOD / 2
        with holding(service, service.client.create_key("weak").key) as weak:  # strangers do not hide it
            assert weak.delete("/passages/x").status_code == 403
        wait_until(lambda: bool(newest(service, 1, action="refused", key="weak")))

        def all_told() -> bool:
            stranger.delete("/passages/x")
            told = newest(service, 1_000, action="refused")
            mine = [entry for entry in told if entry.key is None]
            return len(mine) + sum(entry.detail.get("left_out", 0) for entry in mine) >= FLOOD

        wait_until(all_told)


@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",), ("10.9.9.9",)])
def test_where_from_is_a_proxys_word_only_where_it_is_trusted(
    seeded: Path, tiny: Path, tmp_path: Path, trusted: tuple[str, ...]
) -> None:
    copy_tree(seeded, tmp_path / "data")
    settings = Settings(
        data_dir=tmp_path / "data",
        passage_encoder=str(tiny),
        trainer=False,
        api_key=SERVICE_KEY,
        trusted_proxies=trusted,
    )
    with running(settings) as service, holding(service, SERVICE_KEY) as http:
        http.post("/keys", json={"name": "x"}, headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.7"})
        expected = "203.0.113.7" if trusted == ("127.0.0.0/8",) else "127.0.0.1"
        entry = newest(service, action="key-made")[0]
        assert (entry.peer, entry.key) == (expected, "ADIABAT_API_KEY")


def test_the_log_is_read_in_pages_by_action_and_key_and_by_the_command(locked: Service, ops: httpx.Client) -> None:
    pages, cursor = [], None
    while True:
        page = locked.client.audit(cursor, 5)
        pages.append(page.entries)
        if (cursor := page.next_cursor) is None:
            break
    sequences = [entry.sequence for entries in pages for entry in entries]
    assert sequences == sorted(set(sequences), reverse=True)
    assert len(pages) > 2
    assert refused(ops.get("/audit", params={"cursor": "x"})) == (422, "invalid-field")
    assert refused(ops.get("/audit", params={"action": "danced"})) == (422, "invalid-field")
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", "audit", "--url", locked.url, "--key", "ops", "--limit", "2"],
        env=environment(locked.settings) | {"ADIABAT_API_KEY": SERVICE_KEY},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ended.stdout.splitlines()
    assert len(lines) == 3
    assert all("ops from 127.0.0.1" in line for line in lines[:2])
    assert lines[2].startswith("the next page: --cursor ")
