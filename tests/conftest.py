"""Real parts for every test: a tiny encoder, a data folder that has it as base, the app on a real socket."""

import gc
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import torch
import uvicorn

from app.api.deps import Parts
from app.assembly import assemble
from app.client import AdiabatClient, ApiError, Unreachable
from app.encoders.export import graph_key
from app.encoders.export_torch import build_graph
from app.encoders.files import EncoderFiles
from app.encoders.spec import read_spec
from app.main import create_app
from app.passages.disk import copy_tree
from app.settings import Settings
from app.web import web_options
from tests.postgres import Server, postgres_server
from tests.s3 import S3Server, s3_server
from tests.tiny import build_tiny

READY_S = 60

# What is tuned and exported here is tiny: the threads of one computation would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

openvino_needed = pytest.mark.skipif(
    find_spec("openvino") is None, reason="OpenVINO is not installed (pip install 'adiabat[openvino]')"
)


def has_bf16() -> bool:
    """What the kernel says, not what an engine says."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text().split() for flag in ("avx512_bf16", "amx_bf16"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The passage encoder of these tests, with prompts on both sides."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    return build_tiny(folder, prompts={"query": "query: ", "document": "passage: "})


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def qdrant() -> Iterator[str]:
    """A Qdrant server, or what stands for one."""
    if (elsewhere := os.environ.get("ADIABAT_TEST_QDRANT_URL")) is not None:
        yield elsewhere
        return
    port = free_port()
    child = start_qdrant(port)
    yield f"http://127.0.0.1:{port}"
    child.kill()
    child.wait()


def start_qdrant(port: int, *options: str) -> "subprocess.Popen[bytes]":
    """What stands for a Qdrant server, answering."""
    child = subprocess.Popen([sys.executable, "-m", "tests.qdrant_rest", str(port), *options])
    wait_until(lambda: _is_up(f"http://127.0.0.1:{port}/collections/none/exists"))
    return child


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph that all tiny encoders of one shape have, exported once: here, where torch is imported already."""
    files, folder = EncoderFiles(build_tiny(tmp_path_factory.mktemp("shape"))), tmp_path_factory.mktemp("graphs")
    spec = read_spec(files)
    key = graph_key(files, spec)
    build_graph(files, spec, key, folder / key[:32])
    return folder


@pytest.fixture(scope="session")
def seeded(tiny: Path, graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder after its first start. Tests copy it."""
    folder = tmp_path_factory.mktemp("seeded") / "data"
    shutil.copytree(graphs, folder / "artifacts" / "graphs")
    with ExitStack() as stack:
        assemble(Settings(data_dir=folder, passage_encoder=str(tiny), trainer=False), stack)
    return folder


@pytest.fixture
def settings(seeded: Path, tiny: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """A test may be parametrized with a dictionary of what differs."""
    folder = tmp_path / "data"
    copy_tree(seeded, folder)
    sources = tmp_path / "sources"
    sources.mkdir()
    plain = Settings(data_dir=folder, passage_encoder=str(tiny), trainer=False, source_dirs=(sources,), threads=1)
    return plain.model_copy(update=getattr(request, "param", None))


@pytest.fixture
def sources(settings: Settings) -> Path:
    """The one folder that encoders may be registered from."""
    return settings.source_dirs[0]


class Service:
    """The app on a real socket, in a thread of this process, with its parts at hand."""

    def __init__(self, settings: Settings, parts: Parts, url: str) -> None:
        self.settings = settings
        self.parts = parts
        self.url = url
        self.client = AdiabatClient(url, settings.api_key, retries=0)


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    with _running(settings) as service:
        yield service
    del service
    # FastAPI keeps what it asked about the functions of the last apps, and with them the apps: after some hundred
    # services a full collection stopped all threads for seconds. What is here now is not walked again.
    gc.collect()
    gc.freeze()


@contextmanager
def _running(settings: Settings) -> Iterator[Service]:
    with ExitStack() as stack:
        parts = assemble(settings, stack)
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            create_app(settings, parts),
            log_level="error",
            lifespan="on",
            timeout_graceful_shutdown=settings.shutdown_s,  # a test that fails may leave a page with a stream open
            **web_options(settings),
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        service = Service(settings, parts, f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            wait_until(lambda: _answers(service.client))
            yield service
        finally:
            service.client.close()
            server.should_exit = True
            thread.join()
            listener.close()


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with running(settings) as started:
        yield started


@pytest.fixture
def client(service: Service) -> AdiabatClient:
    return service.client


@contextmanager
def process(
    settings: Settings, *options: str, program: str = "app.cli", variables: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], AdiabatClient]]:
    """`adiabat serve` as its own process, ready to answer; killed at the end if it still runs."""
    port = free_port()
    command = [sys.executable, "-m", program, "serve", "--port", str(port), *options]
    log = (settings.data_dir.parent / "service.log").open("a")  # a pipe that nobody reads would stop it
    child = subprocess.Popen(command, env=environment(settings) | (variables or {}), stderr=log)
    client = AdiabatClient(f"http://127.0.0.1:{port}", settings.api_key, retries=0)
    try:
        wait_until(lambda: _answers(client) or child.poll() is not None)
        yield child, client
    finally:
        client.close()
        child.kill()
        child.wait()
        log.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def environment(settings: Settings) -> dict[str, str]:
    said = {
        "ADIABAT_ARTIFACTS_URL": settings.artifacts_url,
        "ADIABAT_REGISTRY_URL": settings.registry_url,
        "ADIABAT_QDRANT_URL": settings.qdrant_url,
        "ADIABAT_PASSAGE_ENCODER": settings.passage_encoder,
    }
    return os.environ | {
        **{name: value for name, value in said.items() if value is not None},
        "ADIABAT_DATA_DIR": str(settings.data_dir),
        "ADIABAT_SOURCE_DIRS": ":".join(str(folder) for folder in settings.source_dirs),
        "ADIABAT_THREADS": "1",
        "ADIABAT_MAP_WEIGHTS": str(settings.map_weights),
        "ADIABAT_COLLECTION": settings.collection,
    }


def wait_until(condition: Callable[[], bool], seconds: float = READY_S) -> None:
    """Return as soon as `condition()` holds; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def _answers(client: AdiabatClient) -> bool:
    try:
        return client.ready().status == "ready"
    except (Unreachable, ApiError):
        return False


def trainer_of(service: int) -> int:
    """The process id of the service's trainer, 0 for none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == service and b"trainer" in command:
                return int(entry.name)
    return 0
