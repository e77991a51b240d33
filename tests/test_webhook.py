"""The webhook against a real server: what is signed, what is tried again, and what is contained."""

import base64
import hashlib
import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from app import webhook
from app.settings import Settings
from app.webhook import Webhook, key_of, sign
from tests.conftest import wait_until

SECRET = "a secret of the tests"


class Receiver(ThreadingHTTPServer):
    """Answers with `statuses` in their order, and 204 from then on."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("location", f"{self.server.url}/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:  # whoever followed a redirect would come so
        self.server.got.append((self.path, {}, b""))
        self.send_error(404)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    with Receiver(*statuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def sending(url: str | None, secret: str = SECRET) -> Iterator[tuple[Webhook, list[str]]]:
    told: list[str] = []
    made = Webhook(url, secret, told.append)
    made.start()
    yield made, told
    made.stop()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "WAITS_S", (0.01, 0.02))
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.3)


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of its specification."""
    body = b'{"test": 2432232314}'
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_message_comes_signed_and_once() -> None:
    with receiving() as server, sending(server.url) as (hook, told):
        hook.send("canary.rolled-back", experiment=2, said="worse")
        wait_until(lambda: told == ["sent"])
        ((path, headers, body),) = server.got
    assert path == "/hook"
    said = orjson.loads(body)
    assert (said["type"], said["data"]) == ("canary.rolled-back", {"experiment": 2, "said": "worse"})
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"


def test_what_is_not_taken_is_sent_again_under_the_same_id_and_no_redirect_is_followed() -> None:
    with receiving(500, 302) as server, sending(server.url) as (hook, told):
        hook.send("x")
        wait_until(lambda: told == ["sent"])
        assert [path for path, _, _ in server.got] == ["/hook"] * 3
        assert len({headers["webhook-id"] for _, headers, _ in server.got}) == 1
    with receiving(500, 500, 500) as server, sending(server.url) as (hook, told):
        hook.send("first")
        hook.send("second")
        wait_until(lambda: told == ["failed", "sent"])


def test_one_that_hangs_or_is_not_there_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "MAX_WAITING", 3)
    hanging = threading.Event()
    monkeypatch.setattr(_Handler, "do_POST", lambda _: hanging.wait(20))
    with receiving() as server, sending(server.url) as (hook, told):
        for number in range(20):
            hook.send(str(number))  # returns at once
        assert told.count("failed") >= 16
        wait_until(lambda: len(told) == 20)
        assert set(told) == {"failed"}
        hanging.set()
    with sending("http://127.0.0.1:9/none") as (hook, told):
        hook.send("x")
        wait_until(lambda: told == ["failed"])
    with sending(None) as (hook, told):
        hook.send("x")
    assert told == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"webhook_url": "https://hooks.example/x"}, "ADIABAT_WEBHOOK_URL asks for ADIABAT_WEBHOOK_SECRET"),
        ({"webhook_url": "file:///etc/passwd", "webhook_secret": SECRET}, "begins with https:// or http://"),
        ({"webhook_url": "https://me:pw@hooks.example", "webhook_secret": SECRET}, "without user or password"),
        ({"webhook_url": "https://hooks.example:abc/x", "webhook_secret": SECRET}, "its port is no number"),
        ({"webhook_url": "https://[::1/x", "webhook_secret": SECRET}, "Invalid IPv6 URL"),
        ({"webhook_url": "https://a..b/x", "webhook_secret": SECRET}, "label empty"),
        ({"webhook_url": "https://hooks.example", "webhook_secret": "short"}, "at least 16 characters"),
        ({"webhook_url": "https://hooks.example", "webhook_secret": "whsec_not base64 at all"}, "is no base64"),
    ],
)
def test_settings_that_are_none_are_refused(given: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(data_dir=tmp_path, **given)
