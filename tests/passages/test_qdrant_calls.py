"""How the settings reach a Qdrant server: key, TLS, timeout, by REST and by gRPC, at small servers of these tests."""

import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from qdrant_client.grpc import CollectionExists, CollectionExistsRequest, CollectionExistsResponse
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server

from app.errors import Unavailable
from app.passages.qdrant_calls import client_of, collection_id, patiently
from app.settings import Settings

SLOW = "slow"  # a collection that the server takes long to look for
KEY = "correct horse battery"
ABSENT = b'{"result": {"exists": false}, "status": "ok", "time": 0.0}'


class Asked:
    """What a server was asked: the key of each call."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []
        self.released = threading.Event()

    def take(self, key: str | None, collection: str) -> None:
        self.keys.append(key)
        if collection == SLOW:
            self.released.wait(30)


@contextmanager
def over_rest(certificate: tuple[Path, Path] | None = None) -> Iterator[tuple[str, Asked]]:
    asked = Asked()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.take(self.headers.get("api-key"), self.path.split("/")[2])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(ABSENT)))
            self.end_headers()
            self.wfile.write(ABSENT)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Callers that hang up, or believe no certificate, are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}", asked
    asked.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def over_grpc() -> Iterator[tuple[int, Asked]]:
    asked = Asked()

    class Servicer(CollectionsServicer):  # type: ignore[misc]
        def CollectionExists(  # noqa: N802  # Qdrant's name
            self, request: CollectionExistsRequest, context: grpc.ServicerContext
        ) -> CollectionExistsResponse:
            asked.take(dict(context.invocation_metadata()).get("api-key"), request.collection_name)
            return CollectionExistsResponse(result=CollectionExists(exists=False))

    server = grpc.server(ThreadPoolExecutor(2))
    add_CollectionsServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, asked
    asked.released.set()
    server.stop(None).wait()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of an authority that nobody knows."""
    made, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    named = ["-subj", "/CN=qdrant", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *options, *named, "-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made, key


def test_the_key_goes_over_tls_to_a_server_whose_authority_is_known(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with over_rest(certificate) as (url, asked):
        settings = Settings(qdrant_url=url, qdrant_api_key=KEY)
        with pytest.raises(Unavailable, match=f"{url} does not answer .*CERTIFICATE_VERIFY_FAILED"):
            collection_id(client_of(settings, url), "passages")
        assert asked.keys == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert collection_id(client_of(settings, url), "passages") is None
        assert asked.keys == [KEY]


def test_a_server_that_takes_too_long_is_given_up_after_the_timeout_and_not_asked_again() -> None:
    with over_rest() as (url, asked):
        client = client_of(Settings(qdrant_url=url, qdrant_timeout_s=1), url)
        began = time.monotonic()
        with pytest.raises(Unavailable, match=f"{url} does not answer"):
            patiently(lambda: collection_id(client, SLOW))
        assert 0.9 < time.monotonic() - began < 5
        assert asked.keys == [None]


def test_the_key_and_the_timeout_count_over_grpc_too() -> None:
    with over_grpc() as (port, asked):
        url = "http://127.0.0.1:1"  # nothing answers there
        settings = Settings(qdrant_url=url, qdrant_api_key=KEY, qdrant_timeout_s=1, qdrant_grpc_port=port)
        with pytest.warns(UserWarning, match="insecure connection"):
            client = client_of(settings, url)
        assert collection_id(client, "passages") is None
        began = time.monotonic()
        with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
            patiently(lambda: collection_id(client, SLOW))
        assert 0.9 < time.monotonic() - began < 5
        assert asked.keys == [KEY, KEY]
        client.close()
