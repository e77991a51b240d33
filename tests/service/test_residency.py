"""Encoders that leave memory and come back, on the real app."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.client import ApiError
from app.encoders.pool import weights_bytes
from app.settings import Settings
from tests.conftest import Service, process, running, wait_until
from tests.service import encoders
from tests.service.test_observability import scrape, value
from tests.tiny import build_tiny

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def registered(settings: Settings, tiny: Path, sources: Path) -> int:
    """Four encoders beside the base; the bytes that the base and one of them take."""
    with running(settings) as service:
        for seed, name in enumerate(NAMES):
            folder = encoders.near(tiny, sources / name, seed=seed)
            service.client.register_encoder(name, path=str(folder), force=True)
        base = service.parts.pool.resident()
        return weights_bytes(base) + base[0].weights_bytes


@contextmanager
def service_with(settings: Settings, **update: object) -> Iterator[Service]:
    with running(settings.model_copy(update=update)) as service:
        service.client.upsert_passages([{"id": "p", "text": "the water pump"}])
        yield service


def held(service: Service) -> set[str]:
    return {encoder.record.name for encoder in service.parts.pool.resident()}


def test_a_named_encoder_leaves_for_the_next_and_comes_back_on_demand(settings: Settings, registered: int) -> None:
    with (
        service_with(settings, max_resident_bytes=registered) as service,
        httpx.Client(base_url=service.url, trust_env=False) as http,
    ):
        for name in (*NAMES, NAMES[0]):
            assert service.client.search("water", encoder=name).encoder.name == name
            wait_until(lambda name=name: held(service) == {"base", name})
        found = scrape(http)
        assert value(found, "adiabat_encoder_evictions_total") == 4
        assert value(found, "adiabat_encoder_load_seconds_count") == 6
        assert value(found, "adiabat_resident_encoders") == 2


def test_active_previous_and_base_stay_and_the_service_says_that_they_are_too_large(
    settings: Settings, registered: int
) -> None:
    with service_with(settings, max_resident_bytes=registered) as service:
        assert service.client.ready().notes == []
        for name in ("a", "b", "c"):
            service.client.activate(name)
        assert held(service) == {"base", "b", "c"}
        service.client.search("water", encoder="d")
        wait_until(lambda: held(service) == {"base", "b", "c", "d"})
        [note] = service.client.ready().notes
        assert "ADIABAT_MAX_RESIDENT_BYTES" in note
        assert service.client.rollback().swap.load_ms == 0
        service.client.activate("base")
        assert held(service) == {"base", "b"}
        assert service.client.ready().notes == []


@pytest.mark.usefixtures("registered")
def test_where_requests_may_not_load_they_are_refused_and_a_switch_still_loads(settings: Settings) -> None:
    with service_with(settings, load_on_demand=False) as service:
        for call in (
            lambda: service.client.search("water", encoder="a"),
            lambda: service.client.search("water", compare_to="a@1"),
        ):
            with pytest.raises(ApiError, match="ADIABAT_LOAD_ON_DEMAND") as caught:
                call()
            assert (caught.value.status, caught.value.slug) == (409, "encoder-not-resident")
        service.client.activate("a")
        service.client.activate("base")
        assert service.client.search("water", encoder="a").encoder.name == "a"


def test_memory_does_not_grow_while_encoders_come_and_go(tmp_path: Path) -> None:
    """A real process, encoders of 14 MB each: 20 loads after the first five leave it as large as it was."""
    base = build_tiny(tmp_path / "sources" / "base", hidden=384, layers=3)
    settings = Settings(data_dir=tmp_path / "data", passage_encoder=str(base), source_dirs=(tmp_path / "sources",))
    room = {"ADIABAT_MAX_RESIDENT_BYTES": "30000000"}
    with process(settings, "--no-trainer", variables=room) as (child, client):
        for seed, name in enumerate(NAMES):
            folder = encoders.near(base, settings.source_dirs[0] / name, scale=0.01, seed=seed)
            client.register_encoder(name, path=str(folder), force=True)
        # What five seconds after the start imports, unless somebody asks for it before: eleven MB.
        httpx.get(f"{client.url}/openapi.json", trust_env=False, timeout=60).raise_for_status()
        client.search("water", filter={"must": [{"key": "kind", "match": {"value": "pump"}}]})
        sizes = []
        for number in range(25):
            client.search("water", encoder=NAMES[number % len(NAMES)])
            wait_until(lambda: "adiabat_resident_encoders 2.0" in client.metrics())
            sizes.append(_smallest_rss(child.pid))
    assert max(sizes[5:]) < 1.02 * max(sizes[:5]), sizes


def _smallest_rss(pid: int) -> int:
    """Of half a second: what an encoder took is freed aside."""
    until, sizes = time.monotonic() + 0.5, []
    while time.monotonic() < until:
        sizes.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096)
        time.sleep(0.05)
    return min(sizes)
