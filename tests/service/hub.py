"""A hub on this machine, which speaks as much of its protocol as a download needs."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from huggingface_hub import constants
from pyarrow import parquet

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Content = str | bytes | list[dict[str, Any]]


class Hub(BaseHTTPRequestHandler):
    """Repositories by name, such as "someone/bees" or "datasets/someone/bees": the files of a folder at one commit,
    which `main` names."""

    def __init__(self, repositories: Mapping[str, Path], asked: list[str], *arguments: object) -> None:
        self._repositories = repositories
        self._asked = asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        for name, folder in self._repositories.items():
            api = f"/api/{name if name.startswith('datasets/') else f'models/{name}'}"
            about, tree, files = f"{api}/revision/", f"{api}/tree/{COMMIT}", f"/{name}/resolve/{COMMIT}/"
            if path.startswith(about):
                if path.removeprefix(about) not in ("main", COMMIT):
                    return self._refuse("RevisionNotFound")
                siblings = [{"rfilename": file, "size": len(content)} for file, content in _files(folder)]
                said = {"id": name.removeprefix("datasets/"), "sha": COMMIT, "siblings": siblings}
                return self._send(json.dumps(said).encode(), body)
            if path == tree:
                listed = [
                    {"type": "file", "path": file, "oid": _oid(content), "size": len(content)}
                    for file, content in _files(folder)
                ]
                return self._send(json.dumps(listed).encode(), body)
            if path.startswith(files):
                self._asked.append(path.removeprefix(files))
                return self._send(dict(_files(folder))[path.removeprefix(files)], body)
        return self._refuse("RepoNotFound")

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_oid(content)}"')
        self.end_headers()
        if body:
            self.wfile.write(content)


def repository(folder: Path, files: Mapping[str, Content]) -> Path:
    """Lists of rows are written as Parquet."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            parquet.write_table(pa.Table.from_pylist(content), path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@contextmanager
def running_hub(
    repositories: Mapping[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ThreadingHTTPServer, list[str]]]:
    """The hub, and the names of the files that were fetched from it. This process and those it starts use it."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, repositories, asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setenv("ADIABAT_HUB", "1")
    # The library read its environment when it was imported, which may have been long ago.
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    try:
        yield server, asked
    finally:  # what is tested may raise
        server.shutdown()
        thread.join()
        server.server_close()


def _files(folder: Path) -> list[tuple[str, bytes]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in found]


def _oid(content: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
