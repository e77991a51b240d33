"""A service that is told to stop: what is being answered is answered, nothing new is taken, and it ends."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.client import AdiabatClient
from app.registry import Registry
from app.settings import Settings
from tests.conftest import process, trainer_of, wait_until
from tests.service import encoders
from tests.service.hindered_service import CLOSE, HINDRANCE, SLOW
from tests.service.test_process import state_of


@dataclass(kw_only=True)
class Held:
    """A service in whose `PUT /active-encoder` somebody waits until `slow` is removed."""

    child: "subprocess.Popen[bytes]"
    client: AdiabatClient
    slow: Path
    thread: threading.Thread
    answers: list[httpx.Response] = field(default_factory=list)

    def refuses_connections(self) -> bool:
        address = urlsplit(self.client.url)
        try:
            httpx.get(f"http://{address.netloc}/health/live", trust_env=False, timeout=5)
        except httpx.ConnectError:
            return True
        except httpx.TransportError:
            return False
        return False


@contextmanager
def held(settings: Settings, tiny: Path, sources: Path, *options: str, **variables: str) -> Iterator[Held]:
    hindrance = settings.data_dir.parent / "hindrance"
    hindrance.mkdir()
    slow = hindrance / SLOW
    with process(
        settings,
        *options,
        program="tests.service.hindered_service",
        variables={HINDRANCE: str(hindrance), **variables},
    ) as (child, client):
        client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees")))
        slow.touch()
        answers: list[httpx.Response] = []

        def put() -> None:
            with suppress(httpx.TransportError):  # cut off
                answers.append(
                    httpx.put(f"{client.url}/active-encoder", json={"name": "bees"}, timeout=60, trust_env=False)
                )

        thread = threading.Thread(target=put)
        thread.start()
        flight = "adiabat_http_requests_in_flight"
        wait_until(lambda: f"{flight} 2.0" in httpx.get(f"{client.url}/metrics", trust_env=False).text)
        yield Held(child=child, client=client, slow=slow, thread=thread, answers=answers)
        thread.join()


def test_a_stop_answers_what_is_under_way_refuses_what_is_new_and_ends_with_0(
    settings: Settings, tiny: Path, sources: Path
) -> None:
    """The trainer stops beside it, and a replica takes its leave."""
    url = f"sqlite:///{settings.registry_path}"
    shared = settings.model_copy(update={"registry_url": url})
    with held(shared, tiny, sources) as stopping:
        wait_until(lambda: "alive" in stopping.client.ready().trainer)
        trainer = trainer_of(stopping.child.pid)
        registry = Registry(url)
        assert len(registry.instances.live()) == 1
        stopping.child.send_signal(signal.SIGTERM)
        wait_until(stopping.refuses_connections, 10)
        wait_until(lambda: state_of(trainer) == "Z" or not Path(f"/proc/{trainer}").exists(), 20)
        assert stopping.child.poll() is None
        stopping.slow.unlink()
        stopping.thread.join()
        [answer] = stopping.answers
        assert (answer.status_code, answer.json()["encoder"]["generation"]) == (200, 2)
        assert stopping.child.wait(20) == 0
        assert registry.instances.live() == []
        assert registry.workers.ages_s() == {}
        registry.close()


@pytest.mark.parametrize(("close_s", "ends_by"), [("1", 12), pytest.param(None, 40, marks=pytest.mark.nightly)])
def test_a_stop_does_not_wait_for_what_does_not_end(
    settings: Settings, tiny: Path, sources: Path, close_s: str | None, ends_by: float
) -> None:
    variables = {"ADIABAT_SHUTDOWN_S": "1"} | ({CLOSE: close_s} if close_s else {})
    with held(settings, tiny, sources, "--no-trainer", **variables) as stopping:
        began = time.monotonic()
        stopping.child.terminate()
        assert stopping.child.wait(ends_by) == 1  # it was not in order, and says so
        assert time.monotonic() - began > 1
        stopping.thread.join()
        assert stopping.answers == [] or stopping.answers[0].status_code >= 500
    assert "not stopped within" in (settings.data_dir.parent / "service.log").read_text()
    with process(settings, "--no-trainer") as (_, client):
        assert client.active_encoder().encoder.generation == 1
        assert [each.name for each in client.encoders()] == ["base", "bees"]
