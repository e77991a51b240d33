"""`source: {hub, revision}`, against a hub on this machine that speaks as much of its protocol as a download needs."""

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.client import ApiError
from app.settings import Settings
from tests.conftest import Service, process
from tests.service import encoders

REPOSITORY = "someone/bees"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One repository: the files of a folder at one commit, which `main` names."""

    def __init__(self, folder: Path, asked: list[str], *arguments: object) -> None:
        self._folder = folder
        self._asked = asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        about, tree, files = (
            f"/api/models/{REPOSITORY}/revision/",
            f"/api/models/{REPOSITORY}/tree/{COMMIT}",
            f"/{REPOSITORY}/resolve/{COMMIT}/",
        )
        if path.startswith(about) and path.removeprefix(about) in ("main", COMMIT):
            siblings = [{"rfilename": name, "size": len(content)} for name, content in self._files()]
            self._send(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode(), body)
        elif path == tree:
            listed = [
                {"type": "file", "path": name, "oid": _oid(content), "size": len(content)}
                for name, content in self._files()
            ]
            self._send(json.dumps(listed).encode(), body)
        elif path.startswith(files):
            self._asked.append(path.removeprefix(files))
            self._send(dict(self._files())[path.removeprefix(files)], body)
        else:
            code = "RevisionNotFound" if path.startswith(about) else "RepoNotFound"
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _files(self) -> list[tuple[str, bytes]]:
        found = sorted(path for path in self._folder.rglob("*") if path.is_file())
        return [(str(path.relative_to(self._folder)), path.read_bytes()) for path in found]

    def _send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_oid(content)}"')
        self.end_headers()
        if body:
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ThreadingHTTPServer, list[str]]]:
    """The hub, and the names of the files that were fetched from it."""
    folder = encoders.near(tiny, tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder, asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("ADIABAT_HUB", "1")
    yield server, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_name_is_fetched_without_code_what_is_not_there_is_422_and_a_hub_that_is_down_503(
    settings: Settings, hub: tuple[ThreadingHTTPServer, list[str]]
) -> None:
    with process(settings, "--no-trainer") as (_, client):
        made = client.register_encoder("bees", hub=REPOSITORY)
        assert (made.version, made.admission) == (1, "probed")
        fetched = set(hub[1])
        assert {"modules.json", "model.safetensors", "1_Pooling/config.json"} <= fetched
        assert not fetched & {"pytorch_model.bin", "modeling.py"}
        manifest = json.loads((settings.artifacts_dir / "bees@1" / "adiabat.json").read_text())
        assert manifest["source"] == f"hub {REPOSITORY}@{COMMIT}"
        again = client.register_encoder("bees", hub=REPOSITORY, revision=COMMIT)
        assert (again.version, again.digest) == (1, made.digest)
        for source in ({"hub": "someone/nothing"}, {"hub": REPOSITORY, "revision": "v9"}):
            with pytest.raises(ApiError, match="could not be fetched") as caught:
                client.register_encoder("bees", **source)
            assert (caught.value.status, caught.value.slug) == (422, "source-refused")
        hub[0].shutdown()
        hub[0].server_close()
        with pytest.raises(ApiError, match="The model hub does not answer") as caught:
            client.register_encoder("bees", hub="someone/else")
        assert (caught.value.status, caught.value.slug) == (503, "unavailable")
        assert client.register_encoder("bees", hub=REPOSITORY).version == 1  # it was fetched before
        assert [item.name for item in client.encoders()] == ["base", "bees"]


def test_what_is_over_the_limit_on_archives_is_refused_before_a_file_is_fetched(
    settings: Settings, hub: tuple[ThreadingHTTPServer, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADIABAT_MAX_ARCHIVE_BYTES", "10000")
    with process(settings, "--no-trainer") as (_, client):
        with pytest.raises(ApiError, match="ADIABAT_MAX_ARCHIVE_BYTES") as caught:
            client.register_encoder("bees", hub=REPOSITORY)
        assert (caught.value.status, caught.value.slug) == (413, "too-large")
    assert hub[1] == []


def test_where_the_hub_is_off_the_setting_is_named(service: Service) -> None:
    with pytest.raises(ApiError, match="ADIABAT_HUB=1") as caught:
        service.client.register_encoder("bees", hub=REPOSITORY)
    assert (caught.value.status, caught.value.slug) == (422, "source-refused")


@pytest.mark.parametrize("name", ["../secrets", "a/b/c", "a b", ""])
def test_a_name_that_no_hub_has_is_422_by_field(service: Service, name: str) -> None:
    with pytest.raises(ApiError, match=r"source\.hub"):
        service.client.register_encoder("bees", hub=name)
