"""An S3 server for tests: moto's, as a process of its own that can be killed, stopped and started again.

It keeps everything in memory: what it held when it was killed is put back when it is started, as a disk would.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store

KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@dataclass(kw_only=True)
class S3Server:
    """`fresh` makes a bucket and gives the address of a prefix in it."""

    port: int
    variables: dict[str, str] = field(default_factory=dict)
    buckets: list[str] = field(default_factory=list)
    held: dict[tuple[str, str], bytes] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from tests.conftest import wait_until

        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self.port)]
        quiet = subprocess.DEVNULL
        self.child = subprocess.Popen(command, env=os.environ | self.variables, stdout=quiet, stderr=quiet)
        wait_until(self._answers)
        for bucket in self.buckets:
            self._make(bucket)
        for (bucket, path), content in self.held.items():
            obstore.put(self.store(bucket), path, content)

    def fresh(self) -> str:
        bucket = f"tests-{uuid.uuid4().hex[:12]}"
        self._make(bucket)
        self.buckets.append(bucket)
        return f"s3://{bucket}/pre/fix"

    def store(self, bucket: str) -> S3Store:
        config = {name.lower(): value for name, value in KEYS.items()}
        return S3Store(bucket, **config, endpoint=self.endpoint, client_options={"allow_http": True})  # type: ignore[arg-type]

    def objects(self, url: str) -> dict[str, bytes]:
        """By their path below the prefix of `url`."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return {path.removeprefix(f"{prefix}/"): content for path, content in self._contents(bucket).items()}

    def put(self, url: str, path: str, content: bytes) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        obstore.put(self.store(bucket), f"{prefix}/{path}", content)

    def kill(self) -> None:
        """Whoever asks is refused the connection."""
        self.held = {
            (bucket, path): content for bucket in self.buckets for path, content in self._contents(bucket).items()
        }
        self.close()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Whoever asks waits."""
        assert self.child is not None
        self.child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.child.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def _contents(self, bucket: str) -> dict[str, bytes]:
        store = self.store(bucket)
        paths = [each["path"] for page in obstore.list(store) for each in page]
        return {path: bytes(obstore.get(store, path).bytes()) for path in paths}

    def _make(self, bucket: str) -> None:
        httpx.put(f"{self.endpoint}/{bucket}", trust_env=False).raise_for_status()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.endpoint}/moto-api/", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def s3_server(**variables: str) -> Iterator[S3Server]:
    """With the `AWS_` variables set for this process and its children."""
    from tests.conftest import free_port

    server = S3Server(port=free_port(), variables=variables)
    before = dict(os.environ)
    os.environ.update(KEYS | {"AWS_ENDPOINT_URL": server.endpoint})
    try:
        server.start()
        yield server
    finally:
        server.close()
        os.environ.clear()
        os.environ.update(before)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
