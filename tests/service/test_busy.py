"""Slow work has permits, and what watches the service is answered while every thread is busy."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from app.api import leaving
from app.api.permits import MAX_ADMISSIONS, MAX_UPSERTS
from app.retrieval import SEARCH_THREADS
from tests.conftest import Service, wait_until
from tests.registry.jobs import new_job

THREADS = 40  # what starlette has for all routes that are no coroutines


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, part: type, method: str) -> Iterator[Callable[[], int]]:
    """Calls of `method` wait until the block ends, and break then; gives how many came."""
    released = threading.Event()
    count = 0

    def wait(*_: Any, **__: Any) -> int:
        nonlocal count
        count += 1
        released.wait(60)
        raise RuntimeError("enough waited")

    monkeypatch.setattr(part, method, wait)
    try:
        yield lambda: count
    finally:
        released.set()


def post(service: Service, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{service.url}{path}", json=body, trust_env=False, timeout=60)


def test_readiness_figures_and_events_are_answered_while_all_threads_are_busy(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{service.url}/passages/count"
    with ThreadPoolExecutor(THREADS) as callers, held(monkeypatch, type(service.parts.store), "count") as waiting:
        for _ in range(THREADS):
            callers.submit(httpx.get, url, trust_env=False, timeout=60)
        wait_until(lambda: waiting() == THREADS)
        for path in ("/health/ready", "/metrics"):
            assert httpx.get(f"{service.url}{path}", trust_env=False, timeout=10).status_code == 200
        job = service.parts.registry.jobs.add(new_job(service.parts.registry))
        with httpx.stream("GET", f"{service.url}/tuning-jobs/{job.id}/events", trust_env=False, timeout=10) as told:
            assert "event: status" in told.iter_lines()


@pytest.mark.parametrize(
    ("part", "method", "path", "body", "permits"),
    [
        ("ingest", "upsert", "/passages", {"passages": [{"id": "a", "text": "a pump"}]}, MAX_UPSERTS),
        ("registrar", "register", "/encoders", {"name": "bees", "source": {"path": "bees"}}, MAX_ADMISSIONS),
    ],
)
def test_one_more_than_may_run_at_once_is_429_at_once_and_welcome_later(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    method: str,
    path: str,
    body: dict[str, Any],
    permits: int,
) -> None:
    (service.settings.source_dirs[0] / "bees").mkdir()
    with (
        ThreadPoolExecutor(permits) as callers,
        held(monkeypatch, type(getattr(service.parts, part)), method) as waiting,
    ):
        for _ in range(permits):
            callers.submit(post, service, path, body)
        wait_until(lambda: waiting() == permits)
        refused = post(service, path, body)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:adiabat:problem:overloaded")
    assert post(service, path, body).status_code == 500  # let in, and broken like those before it
    assert waiting() == permits + 1


QUESTION = {"query": "why does the pump leak"}


def test_searches_that_the_store_falls_behind_with_are_bounded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.parts.retrieval, "_max_waiting", 3)
    with ThreadPoolExecutor(3) as callers, held(monkeypatch, type(service.parts.store), "search_batch") as waiting:
        asked = [callers.submit(post, service, "/search", QUESTION) for _ in range(3)]
        wait_until(lambda: waiting() == 3)
        refused = post(service, "/search", QUESTION)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:adiabat:problem:overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
    assert [each.result().status_code for each in asked] == [500] * 3
    assert post(service, "/search", QUESTION).status_code == 500  # let in, and broken like those before it


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_waits_for_a_client_that_left_is_never_begun(
    service: Service, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(leaving, "PATIENCE_S", 0.05)
    with (
        ThreadPoolExecutor(SEARCH_THREADS) as callers,
        held(monkeypatch, type(service.parts.store), "search_batch") as waiting,
    ):
        for _ in range(SEARCH_THREADS):
            callers.submit(post, service, "/search", QUESTION)
        wait_until(lambda: waiting() == SEARCH_THREADS)
        with pytest.raises(httpx.ReadTimeout):
            httpx.request(
                method,
                f"{service.url}/search",
                params={"q": "leaks"} if method == "GET" else None,
                json=QUESTION if method == "POST" else None,
                trust_env=False,
                timeout=0.5,
            )
        wait_until(lambda: service.parts.retrieval._under_way == SEARCH_THREADS)
        figures = httpx.get(f"{service.url}/metrics", trust_env=False).text
        assert f'_seconds_count{{method="{method}",route="/search",status="499"}} 1.0' in figures
    assert waiting() == SEARCH_THREADS
