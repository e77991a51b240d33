"""The clients against a real socket that refuses, breaks off and then answers; both clients, one behaviour."""

import asyncio
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.client import AdiabatClient, ApiError, AsyncAdiabatClient, Unreachable
from app.client.common import connecting, wait_s
from tests.conftest import Service

SEARCHED = {
    "search_id": "a" * 32,
    "hits": [],
    "mode": "dense",
    "rule": "active",
    "encoder": {"name": "base", "version": 1, "digest": "sha256:0", "generation": 1},
    "took_ms": {"encode": 1, "search": 1, "total": 2},
    "a_field_of_tomorrow": {"kept": True},
}
OVERLOADED = (429, {"type": "urn:adiabat:problem:overloaded", "detail": "later"}, {"Retry-After": "0"})
AWAY = (503, {"type": "urn:adiabat:problem:unavailable", "detail": "later"}, {"Retry-After": "0"})
CONFLICT = (409, {"type": "urn:adiabat:problem:conflict", "detail": "no"}, {})
BREAKS = (0, {}, {})
Said = tuple[int, dict[str, Any], dict[str, str]]


class Script(http.server.BaseHTTPRequestHandler):
    """Answers what `script` says, one by one, and remembers what was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self.server.asked.append((self.path, dict(self.headers), self.rfile.read(length)))  # type: ignore[attr-defined]
        status, body, headers = self.server.script.pop(0)  # type: ignore[attr-defined]
        if status == 0:
            self.connection.close()
            self.close_connection = True
            return
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815 - the names that the base class calls

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


class Peer:
    def __init__(self, server: http.server.ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.script: list[Said] = server.script  # type: ignore[attr-defined]
        self.asked: list[tuple[str, dict[str, str], bytes]] = server.asked  # type: ignore[attr-defined]


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Script)
    server.script, server.asked = [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Peer(server)
    server.shutdown()
    thread.join()
    server.server_close()


Call = Callable[..., Any]


def _call_sync(url: str, method: str, *args: Any, **options: Any) -> Any:
    with AdiabatClient(url) as client:
        return getattr(client, method)(*args, **options)


def _call_async(url: str, method: str, *args: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncAdiabatClient(url) as client:
            return await getattr(client, method)(*args, **options)

    return asyncio.run(run())


@pytest.fixture(params=[_call_sync, _call_async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param
    return made


def test_what_was_refused_for_now_is_asked_again(peer: Peer, call: Call) -> None:
    peer.script += [OVERLOADED, AWAY, (200, SEARCHED, {})]
    assert call(peer.url, "search", "x").encoder.name == "base"
    assert len(peer.asked) == 3


def test_patience_ends_after_the_retries_with_what_the_service_said(peer: Peer, call: Call) -> None:
    peer.script += [AWAY] * 4
    with pytest.raises(ApiError, match="later") as refused:
        call(peer.url, "search", "x")
    assert (refused.value.status, refused.value.slug, refused.value.retry_after_s) == (503, "unavailable", 0.0)
    assert len(peer.asked) == 3


def test_other_refusals_are_told_at_once(peer: Peer, call: Call) -> None:
    peer.script += [CONFLICT]
    with pytest.raises(ApiError, match="no"):
        call(peer.url, "activate", "bees")
    assert len(peer.asked) == 1


def test_a_broken_connection_repeats_only_what_has_the_same_effect_twice(peer: Peer, call: Call) -> None:
    peer.script += [BREAKS, (200, SEARCHED, {})]
    assert call(peer.url, "search", "x").hits == []
    peer.script += [BREAKS, BREAKS]
    with pytest.raises(Unreachable):
        call(peer.url, "rollback")
    assert len(peer.asked) == 3


def test_a_registration_is_repeated_under_one_key(peer: Peer, call: Call) -> None:
    peer.script += [BREAKS, CONFLICT]
    with pytest.raises(ApiError):
        call(peer.url, "register_encoder", "bees", path="/x")
    keys = {headers["Idempotency-Key"] for _, headers, _ in peer.asked}
    assert (len(peer.asked), len(keys)) == (2, 1)


def test_a_request_that_is_still_worked_on_is_waited_for(peer: Peer, call: Call) -> None:
    busy = (409, {"type": "urn:adiabat:problem:idempotency-key-in-use", "detail": "wait"}, {"Retry-After": "0"})
    peer.script += [BREAKS, busy, CONFLICT]
    with pytest.raises(ApiError, match="no"):
        call(peer.url, "register_encoder", "bees", path="/x")
    assert len(peer.asked) == 3


def test_fields_of_a_newer_service_are_kept_and_missing_ones_named(peer: Peer, call: Call) -> None:
    peer.script += [(200, SEARCHED, {}), (200, {"hits": []}, {})]
    assert call(peer.url, "search", "x").a_field_of_tomorrow == {"kept": True}
    with pytest.raises(Unreachable, match="SearchResponse has no usable 'search_id'"):
        call(peer.url, "search", "x")


def test_a_long_wait_is_left_to_the_caller() -> None:
    patient = ApiError(503, "unavailable", "later", {}, retry_after_s=20.0)
    endless = ApiError(503, "unavailable", "later", {}, retry_after_s=3_600.0)
    assert wait_s(0, patient, repeatable=False) == 20.0
    assert wait_s(0, endless, repeatable=True) is None
    assert wait_s(0, httpx.ReadTimeout("slow"), repeatable=True) is None
    assert wait_s(0, httpx.ConnectError("nobody"), repeatable=True) is None


def test_nobody_there_is_said_with_the_address(call: Call) -> None:
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:9 does not answer"):
        call("http://127.0.0.1:9", "version")


def test_a_dataset_is_streamed_from_its_file_again_after_a_break(peer: Peer, call: Call, tmp_path: Path) -> None:
    archive = tmp_path / "d.zip"
    archive.write_bytes(b"PK" + bytes(range(256)) * 8)
    peer.script += [CONFLICT]
    with pytest.raises(ApiError):
        call(peer.url, "put_dataset", "d", archive)
    assert peer.asked[0][1]["Transfer-Encoding"] == "chunked"


def test_both_clients_see_the_real_service_alike(service: Service, call: Call) -> None:
    service.client.upsert_passages([{"id": "a", "text": "the water pump"}])
    answer = call(service.url, "search", "water")
    assert [hit.id for hit in answer.hits] == ["a"]
    assert call(service.url, "count_passages") == 1
    assert call(service.url, "encoder", "base").versions == [1]
    assert call(service.url, "passages").passages[0].text == "the water pump"


def test_a_resting_connection_is_ended_here_before_the_service_ends_it() -> None:
    """Else a call that is sent in that moment breaks: nobody can know of what it did."""
    served = uvicorn.Config("app.main:create_app")
    assert connecting(1)["limits"].keepalive_expiry < served.timeout_keep_alive
