"""What nobody should send, over raw sockets to a real process: refused within bounds of time, memory and work."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.turns import at_once
from app.client import AdiabatClient
from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import process, wait_until
from tests.service.archives import packed
from tests.service.keys import as_bearer

KEY = "correct horse battery"
TIMEOUT_S = 1.2
MAX_HEADERS = 16_384
MAX_BODY = 2**20
MAX_CPU_S = 0.05  # of one refusal
MAX_GROWTH = 32 * 2**20  # of the process, in all
ASKED = 60  # descriptions of the interface: 8 MB
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
HEAD = f"POST /search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    pid: int
    port: int
    url: str
    log: Path

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def memory(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def alive(self) -> bool:
        return httpx.get(f"{self.url}/health/live", trust_env=False).status_code == 200


@pytest.fixture(scope="module")
def target(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("bad")
    copy_tree(seeded, folder / "data")
    settings = Settings(data_dir=folder / "data", passage_encoder=str(tiny), api_key=KEY)
    variables = {
        "ADIABAT_API_KEY": KEY,
        "ADIABAT_REQUEST_TIMEOUT_S": str(TIMEOUT_S),
        "ADIABAT_MAX_HEADER_BYTES": str(MAX_HEADERS),
        "ADIABAT_MAX_BODY_BYTES": str(MAX_BODY),
    }
    with process(settings, "--no-trainer", variables=variables) as (child, client):
        client.search("water")
        yield Target(pid=child.pid, port=int(client.url.rpartition(":")[2]), url=client.url, log=folder / "service.log")


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the problem; (0, {}) where the connection was closed without one."""
    received = b""
    while chunk := _received(connection):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return 0, {}
    if b"chunked" in head:
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    return int(head.split()[1]), json.loads(body)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""


def trickled(connection: socket.socket, piece: bytes, every_s: float) -> float:
    """Send `piece` again and again until the other side has had enough; the seconds that it took."""
    began = time.monotonic()
    connection.settimeout(every_s)
    while time.monotonic() - began < 20 * TIMEOUT_S:
        try:
            connection.sendall(piece)
            if connection.recv(1, socket.MSG_PEEK):
                break
            return time.monotonic() - began
        except TimeoutError:
            continue
        except OSError:
            break
    connection.settimeout(30)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        ("GET /version HTTP/1.1\r\n", b"X-Slow: x\r\n"),  # a header a time
        ("GET /version HTTP/1.1\r\nX-Slow: ", b"x"),  # a letter a time
        ("GE", b""),  # silence in the midst of it
    ],
)
def test_headers_that_trickle_are_given_up(target: Target, begun: str, piece: bytes) -> None:
    with target.connect() as connection:
        connection.sendall(begun.encode())
        assert trickled(connection, piece, 0.1) < 3 * TIMEOUT_S
        status, problem = answer(connection)
        assert (status, problem["type"]) == (408, "urn:adiabat:problem:too-slow")


def test_a_connection_that_says_nothing_is_closed(target: Target) -> None:
    with target.connect() as silent:
        assert answer(silent) == (0, {})
    with target.connect() as idle:
        idle.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.recv(65_536)
        assert trickled(idle, b"\r\n", 0.1) < 5 * TIMEOUT_S


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_trickles_is_given_up(target: Target, kind: str, chunked: bool) -> None:
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000"
    head = HEAD.replace("/search", "/passages").replace("application/json", kind) + f"{length}\r\n\r\n"
    with target.connect() as connection:
        connection.sendall(head.encode())
        assert trickled(connection, b"1\r\n \r\n" if chunked else b" ", 0.1) < 3 * TIMEOUT_S
        status, problem = answer(connection)
        assert (status, problem["type"]) == (408, "urn:adiabat:problem:too-slow")
        assert problem["request_id"]
        assert "ADIABAT_REQUEST_TIMEOUT_S" in problem["detail"]


def test_bodies_that_do_not_come_keep_no_turn_from_others(target: Target) -> None:
    with ExitStack() as held:
        for _ in range(at_once()):
            held.enter_context(target.connect()).sendall((HEAD + "Content-Length: 100\r\n\r\n{").encode())
        began = time.monotonic()
        with AdiabatClient(target.url, KEY, retries=0, timeout_s=10) as client:
            client.search("water")
        assert time.monotonic() - began < TIMEOUT_S * 0.8


def test_a_body_that_goes_on_after_its_refusal_is_not_listened_to(target: Target) -> None:
    head = HEAD.replace(KEY, "wrong horse battery") + "Content-Length: 100000\r\n\r\n"
    with target.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401")
        assert trickled(connection, b" ", 0.1) < 4 * TIMEOUT_S


def test_a_slow_body_that_comes_all_the_same_is_taken(target: Target) -> None:
    """Longer than the timeout in all, but never silent."""
    lines = b"".join(b'{"id": "s%d", "text": "pump %s"}\n' % (n, b"x" * 200) for n in range(8))
    head = HEAD.replace("/search", "/passages").replace("application/json", "application/x-ndjson")
    with target.connect() as connection:
        connection.sendall((head + f"Connection: close\r\nContent-Length: {len(lines)}\r\n\r\n").encode())
        began = time.monotonic()
        for start in range(0, len(lines), 120):
            connection.sendall(lines[start : start + 120])
            time.sleep(0.2)  # the pace is what is tested
        assert time.monotonic() - began > 1.5 * TIMEOUT_S
        status, taken = answer(connection)
        assert (status, taken["embedded"]) == (200, 8)


@pytest.fixture
def much(target: Target) -> Iterator[socket.socket]:
    """A connection that asked for more than the system keeps for it."""
    ask = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.connect(("127.0.0.1", target.port))
        connection.sendall(f"{ask}\r\n".encode() * (ASKED - 1) + f"{ask}Connection: close\r\n\r\n".encode())
        yield connection


def test_a_client_that_stops_reading_is_given_up(target: Target, much: socket.socket) -> None:
    began = time.monotonic()
    wait_until(lambda: is_broken(much))
    assert TIMEOUT_S < time.monotonic() - began < 4 * TIMEOUT_S
    assert target.alive()
    assert "Exception in ASGI" not in target.log.read_text()  # the answer under way knows of it


def is_broken(connection: socket.socket) -> bool:
    try:
        connection.send(b"G")
    except OSError:
        return True
    return False


def test_a_client_that_reads_slowly_gets_all_the_same(much: socket.socket) -> None:
    """At 400 KB/s, of which the system would tell nothing for seconds if it kept its own megabytes of an answer."""
    received, began = b"", time.monotonic()
    while chunk := much.recv(2**16, socket.MSG_WAITALL):
        received += chunk
        if time.monotonic() - began < 4 * TIMEOUT_S:
            time.sleep(0.16)  # the pace is what is tested
    assert received.count(b"HTTP/1.1 200") == ASKED
    assert time.monotonic() - began > 4 * TIMEOUT_S


def test_an_answer_may_be_silent_for_as_long_as_it_likes(target: Target, tmp_path: Path) -> None:
    """Such as the events of a job: nothing of the request is waited for."""
    splits = ("train", "dev")
    (tmp_path / "d.ndjson").write_text(
        "".join(json.dumps({"query": "why", "split": split, "relevant": ["p1"]}) + "\n" for split in splits)
    )
    with (
        AdiabatClient(target.url, KEY) as client,
        httpx.Client(base_url=target.url, trust_env=False, headers=as_bearer(KEY), timeout=30) as http,
    ):
        client.upsert_passages([{"id": "p1", "text": "because"}])
        client.put_dataset("quiet", tmp_path / "d.ndjson")
        job = client.create_tuning_job("quiet", "quiet").id
        with http.stream("GET", f"/tuning-jobs/{job}/events") as events:
            lines = events.iter_lines()
            wait_until(lambda: next(lines) == "")
            time.sleep(3 * TIMEOUT_S)  # the silence is what is tested
            client.cancel_tuning_job(job)
            assert "event: end" in list(lines)


@pytest.mark.parametrize(
    "bomb",
    [
        "X-Long: " + "x" * (MAX_HEADERS + 1),
        "\r\n".join(f"X-{n}: y" for n in range(3_000)),
        "Cookie: " + "; ".join(f"c{n}=y" for n in range(3_000)),
    ],
    ids=["one", "many", "cookies"],
)
def test_header_bombs_are_refused(target: Target, bomb: str) -> None:
    with target.connect() as connection:
        connection.sendall(f"GET /version HTTP/1.1\r\nHost: x\r\n{bomb}\r\n\r\n".encode())
        status, problem = answer(connection)
        assert (status, problem["type"]) == (431, "urn:adiabat:problem:headers-too-large")
    with target.connect() as connection:
        connection.sendall(f"GET /{'x' * 2 * MAX_HEADERS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert answer(connection)[0] == 431


def sent_for_ever(target: Target, begun: str, piece: bytes) -> float:
    """The seconds until the other side broke off."""
    began = time.monotonic()
    with target.connect() as connection:
        connection.sendall(begun.encode())
        try:
            while time.monotonic() - began < 20 * TIMEOUT_S:
                connection.sendall(piece)
        except OSError:
            pass
    return time.monotonic() - began


CHUNKED = HEAD + "Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        ("GET /version HTTP/1.1\r\nX-Long: ", b"x" * 65_536),
        ("GET /version HTTP/1.1\r\n", b"X-More: x\r\n" * 5_000),
        ("GET /", b"x" * 65_536),
        (CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n"),
        (CHUNKED + "1;", b"x" * 65_536),  # the extension of a chunk
        (CHUNKED + "1\r\n \r\n0\r\n", b"X-Trailer: x\r\n" * 5_000),
        (CHUNKED + "1\r\n \r\n0\r\nX-Trailer: ", b"x" * 65_536),
    ],
    ids=["a header", "headers", "an address", "a body", "a chunk's extension", "trailers", "a trailer"],
)
def test_what_never_ends_is_cut_off_in_bounded_memory(target: Target, begun: str, piece: bytes) -> None:
    before = target.memory()
    for _ in range(3):
        assert sent_for_ever(target, begun, piece) < 4 * TIMEOUT_S
    assert target.memory() - before < MAX_GROWTH
    assert target.alive()


DEEP = 10_000
JSON_KIND, LINES_KIND = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}
Nested = Callable[[int], str]


def lists(depth: int) -> str:
    return "[" * depth + "]" * depth


def objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def filters(depth: int) -> str:
    return '{"must":[' * depth + '{"key":"a","match":{"value":1}}' + "]}" * depth


def nots(depth: int) -> str:
    return '{"must_not":' * depth + '{"key":"a","match":{"value":1}}' + "}" * depth


PLACES: list[tuple[str, str, str]] = [
    ("POST", "/search", "%s"),
    ("POST", "/search", '{"query": "x", "filter": %s}'),
    ("POST", "/search", '{"query": %s}'),
    ("POST", "/search/batch", '{"queries": ["x"], "filter": %s}'),
    ("POST", "/passages", '{"passages": [{"id": "a", "text": "x", "metadata": {"m": %s}}]}'),
    ("POST", "/passages/delete", '{"filter": %s}'),
    ("POST", "/encoders", '{"name": "x", "source": %s}'),
    ("POST", "/encoders", '{"name": "x", "source": {"path": "x"}, "labels": %s}'),
    ("PUT", "/active-encoder", "%s"),
    ("POST", "/active-encoder/rollback", "%s"),
    ("POST", "/tuning-jobs", '{"name": "x", "dataset": "x", "recipe": %s}'),
    ("POST", "/evaluations", '{"datasets": %s}'),
    ("POST", "/judgments", '{"query": "x", "passage_id": %s}'),
    ("POST", "/keys", '{"name": %s}'),
    ("POST", "/v1/embeddings", '{"model": "active", "input": %s}'),
    ("PUT", "/datasets/deep", '{"hub": %s}'),
]


@pytest.mark.parametrize("nested", [lists, objects, filters, nots])
def test_json_of_any_depth_is_refused_and_breaks_nothing(target: Target, nested: Nested) -> None:
    """From what a parser may still take to what none takes: never a 500, and never the end of the process."""
    found = {}
    with httpx.Client(base_url=target.url, trust_env=False, headers=as_bearer(KEY), timeout=30) as http:
        for method, path, body in PLACES:
            for depth in (90, 180, 300, 480, 700, 900, 980, DEEP, 10 * DEEP):
                status = http.request(method, path, content=body % nested(depth), headers=JSON_KIND).status_code
                if status >= 500:
                    found[f"{method} {path} {body}", depth] = status
        for depth in (90, 300, 700, 980, 2_500):
            for path in ("/search?q=x&filter=", "/passages?filter=", "/passages/count?filter="):
                status = http.get(path + nested(depth)).status_code
                if status >= 500:
                    found[path, depth] = status
    assert found == {}
    assert target.alive()


def test_lines_and_forms_of_any_depth_are_refused_and_break_nothing(target: Target, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text(lists(DEEP))
    with httpx.Client(base_url=target.url, trust_env=False, headers=as_bearer(KEY), timeout=60) as http:
        for nested in (lists, objects):
            for depth in (300, 900, DEEP, 10 * DEEP):
                line = f'{{"id": "a", "text": "x", "metadata": {{"m": {nested(depth)}}}}}\n'
                taken = http.post("/passages", content=line, headers=LINES_KIND)
                assert (taken.status_code, taken.json()["bad_line_count"]) == (200, 1), taken.text
                question = f'{{"query": "x", "relevant": {nested(depth)}}}\n'
                assert http.put("/datasets/deep", content=question, headers=LINES_KIND).status_code == 422
                form = http.post("/encoders", data={"name": "x", "labels": nested(depth)}, files={"archive": b"x"})
                assert form.status_code in (400, 422), form.text
        archive = packed(tmp_path / "model", "tar.gz")
        broken = http.post("/encoders", data={"name": "x"}, files={"archive": archive})
        assert broken.status_code in (409, 422), broken.text
    assert target.alive()


CHEAP = 20


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: (HEAD.replace(KEY, "wrong horse battery") + "Content-Length: 2\r\n\r\n{}").encode(),
        lambda: (HEAD.replace(KEY, "adiabat_" + "0" * 20 + "_" + "x" * 43) + "Content-Length: 2\r\n\r\n{}").encode(),
        lambda: (HEAD + f"Content-Length: {MAX_BODY + 1}\r\n\r\n").encode(),
        lambda: (HEAD + f"Content-Length: {MAX_BODY}\r\n\r\n").encode() + b"[" * MAX_BODY,
        lambda: (HEAD + f"Content-Length: {2 * DEEP}\r\n\r\n{lists(DEEP)}").encode(),
        lambda: (HEAD + f"Content-Length: {MAX_BODY}\r\n\r\n").encode() + b'"' + b"x" * (MAX_BODY - 2) + b'"',
        lambda: b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEADERS + b"\r\n\r\n",
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a client that speaks TLS
        lambda: b"PUT /search HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=[
        "a wrong key",
        "an unknown key",
        "too large",
        "brackets",
        "deep",
        "a string",
        "a head",
        "not HTTP",
        "a method",
    ],
)
def test_a_refusal_is_cheap(target: Target, request_of: Callable[[], bytes]) -> None:
    sent = request_of()
    before, cpu_s = target.memory(), target.cpu_s()
    for _ in range(CHEAP):
        with target.connect() as connection:
            connection.sendall(sent)
            assert 400 <= int(connection.recv(4_096).split()[1]) < 500
    assert (target.cpu_s() - cpu_s) / CHEAP < MAX_CPU_S
    assert target.memory() - before < MAX_GROWTH


def test_many_that_trickle_keep_nobody_from_being_served(target: Target) -> None:
    slow = [target.connect() for _ in range(200)]
    for connection in slow:
        connection.sendall(b"GET /version HTTP/1.1\r\nX-")
    with httpx.Client(base_url=target.url, trust_env=False, headers=as_bearer(KEY)) as http:
        assert all(http.post("/search", json={"query": "pump"}).status_code == 200 for _ in range(20))
    assert {answer(connection)[0] for connection in slow} == {408}
    for connection in slow:
        connection.close()
