"""`/tuning-jobs/{id}/events`: replay, following, resuming, leaving. The test plays the trainer on the real registry."""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import httpx
import pytest

from app.api.event_stream import HEARTBEAT, PAGE, RETRY, EventStreams
from app.client import AdiabatClient
from app.registry import EventKind, JobEvent, JobStatus, Registry
from app.settings import Settings
from tests.conftest import Service, process, wait_until

LINES = [
    {"query": "why", "split": "train", "relevant": ["p1"]},
    {"query": "how", "split": "dev", "relevant": ["p1"]},
]
PATIENCE_S = 30
MANY = 60  # more than the threads that answer blocking calls


def new_job(url: str, client: AdiabatClient) -> str:
    body = "\n".join(json.dumps(line) for line in LINES)
    kind = {"Content-Type": "application/x-ndjson"}
    httpx.put(f"{url}/datasets/d", content=body, headers=kind, trust_env=False).raise_for_status()
    return client.create_tuning_job("bees", "d").id


@pytest.fixture
def registry(service: Service) -> Registry:
    return service.parts.registry


@pytest.fixture
def job_id(service: Service, registry: Registry) -> str:
    """A job at a trainer: this test."""
    made = new_job(service.url, service.client)
    wait_until(lambda: registry.jobs.get(made).status is JobStatus.PREPARED)
    assert registry.jobs.claim("test") is not None
    return made


@contextmanager
def following(url: str, job_id: str, after: str = "", **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The events, each as it arrives."""
    address = f"{url}/tuning-jobs/{job_id}/events{after}"
    with httpx.stream("GET", address, headers=headers, timeout=30, trust_env=False) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield events_in(response.iter_lines())


def events_in(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    frame: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            field, _, value = line.partition(": ")
            frame[field] = value
        elif "data" in frame:
            event = json.loads(frame["data"])
            assert (frame["id"], frame["event"]) == (str(event["sequence"]), event["kind"])
            yield event
            frame = {}


def test_a_follower_hears_what_was_and_then_what_happens_until_the_end(
    service: Service, registry: Registry, job_id: str
) -> None:
    with following(service.url, job_id) as events:
        assert [next(events)["data"]["status"] for _ in range(4)] == ["queued", "preparing", "queued", "running"]
        registry.jobs.report(job_id, {"phase": "tuning", "step": 1, "steps": 9}, held_by="test")
        heard = next(events)
        assert (heard["kind"], heard["data"]["step"], heard["sequence"]) == ("progress", 1, 5)
        registry.events.tell(job_id, EventKind.MEASURED, when="before", dev=0.5, guards={})
        assert next(events)["data"] == {"when": "before", "dev": 0.5, "guards": {}}
        registry.jobs.move(job_id, JobStatus.FAILED, only_from=(JobStatus.RUNNING,), reason="no light")
        end = next(events)
        assert (end["kind"], end["data"]) == ("end", {"status": "failed", "reason": "no light"})
        assert list(events) == []


def test_a_follower_that_comes_back_goes_on_after_the_last_event_it_heard(
    service: Service, registry: Registry, job_id: str
) -> None:
    with following(service.url, job_id, **{"Last-Event-ID": "2"}) as events:
        assert next(events)["sequence"] == 3
    with following(service.url, job_id, "?after=3") as events:
        assert next(events)["sequence"] == 4
    with following(service.url, job_id, "?after=1", **{"Last-Event-ID": "3"}) as events:
        assert next(events)["sequence"] == 4
    registry.jobs.move(job_id, JobStatus.CANCELLED, only_from=(JobStatus.RUNNING,))
    with following(service.url, job_id, "?after=4") as events:
        assert [event["kind"] for event in events] == ["end"]
    ended = httpx.get(f"{service.url}/tuning-jobs/{job_id}/events?after=5", trust_env=False)
    assert (ended.status_code, ended.content) == (204, b"")


def test_the_end_of_an_interrupted_job_is_not_the_end_of_the_resumed_one(
    service: Service, registry: Registry, job_id: str
) -> None:
    registry.jobs.interrupt(worker="test")
    with following(service.url, job_id, "?after=4") as events:
        assert [event["data"]["status"] for event in events] == ["interrupted"]
    resumed = httpx.post(f"{service.url}/tuning-jobs/{job_id}/resume", trust_env=False)
    assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    with following(service.url, job_id, "?after=4") as events:
        statuses = [next(events)["data"]["status"] for _ in range(4)]
        assert statuses == ["interrupted", "queued", "preparing", "queued"]
    again = httpx.post(f"{service.url}/tuning-jobs/{job_id}/resume", trust_env=False)
    assert (again.status_code, again.json()["type"]) == (409, "urn:adiabat:problem:job-not-resumable")


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 30])
def test_a_number_that_is_none_is_refused(service: Service, job_id: str, after: str) -> None:
    address = f"{service.url}/tuning-jobs/{job_id}/events"
    for answer in (
        httpx.get(address, params={"after": after}, trust_env=False),
        httpx.get(address, headers={"Last-Event-ID": after}, trust_env=False),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:adiabat:problem:invalid-field")


def test_an_unknown_job_has_no_events(service: Service) -> None:
    for call in ("events", "resume"):
        answer = httpx.request("GET" if call == "events" else "POST", f"{service.url}/tuning-jobs/x/{call}")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:adiabat:problem:job-not-found")


def test_many_followers_hold_no_thread_and_those_who_leave_leave_nothing(service: Service, job_id: str) -> None:
    streams = service.parts.events

    async def follow_and_ask() -> None:
        limits = httpx.Limits(max_connections=MANY + 1)
        async with httpx.AsyncClient(base_url=service.url, limits=limits, timeout=30, trust_env=False) as http:
            waiting = [asyncio.create_task(until_left(http)) for _ in range(MANY)]
            while streams.followers < MANY:
                await asyncio.sleep(0.01)
            # A call that needs a thread: with one held by every follower it would wait for ever.
            assert (await http.get("/passages/count")).json() == {"count": 0}
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def until_left(http: httpx.AsyncClient) -> None:
        async with http.stream("GET", f"/tuning-jobs/{job_id}/events") as response:
            async for _ in response.aiter_lines():
                pass

    asyncio.run(asyncio.wait_for(follow_and_ask(), PATIENCE_S))
    wait_until(lambda: streams.followers == 0)


def test_followers_at_the_same_event_share_one_look_at_the_registry() -> None:
    looks: list[int] = []

    def read(job_id: str, after: int, _: int) -> list[JobEvent]:
        looks.append(after)
        kind = EventKind.END if after else EventKind.LOG
        return [JobEvent(job_id=job_id, sequence=after + 1, at=0.0, kind=kind, data={})]

    async def follow_together() -> None:
        streams = EventStreams(read)
        heard = await asyncio.gather(*(everything(streams.follow("j", 0)) for _ in range(MANY)))
        assert {len(each) for each in heard} == {3}

    asyncio.run(follow_together())
    assert looks == [0, 1]


def test_a_silent_job_is_told_to_be_still_there_and_a_closing_server_ends_the_stream() -> None:
    streams = EventStreams(lambda *_: [], heartbeat_s=0)

    async def listen() -> None:
        async with asyncio.timeout(PATIENCE_S), aclosing(streams.follow("j", 0)) as stream:
            assert await anext(stream) == RETRY
            assert await anext(stream) == HEARTBEAT
            assert await anext(stream) == HEARTBEAT
            streams.close()
            assert [chunk async for chunk in stream] == []

    asyncio.run(listen())
    assert streams.followers == 0


def test_a_long_history_is_replayed_whole_even_if_a_page_ends_with_the_end() -> None:
    history = [
        JobEvent(job_id="j", sequence=n, at=0.0, kind=EventKind.END if n == 2 * PAGE else EventKind.LOG, data={})
        for n in range(1, 2 * PAGE + 1)
    ]
    streams = EventStreams(lambda _, after, limit: history[after : after + limit])
    chunks = asyncio.run(everything(streams.follow("j", 0)))
    assert len(chunks) == 1 + 2 * PAGE


async def everything(stream: AsyncIterator[bytes]) -> list[bytes]:
    async with asyncio.timeout(PATIENCE_S):
        return [chunk async for chunk in stream]


def test_a_service_that_is_stopped_does_not_wait_for_its_followers(settings: Settings) -> None:
    with process(settings, "--no-trainer") as (child, client):
        job_id = new_job(client.url, client)
        followed = threading.Event()

        def follow() -> None:
            with following(client.url, job_id) as events:
                for _ in events:
                    followed.set()

        follower = threading.Thread(target=follow)
        follower.start()
        assert followed.wait(30)
        child.send_signal(signal.SIGTERM)
        child.wait(20)
        follower.join(20)
        assert not follower.is_alive()
