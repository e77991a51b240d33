"""Encoders that leave memory and come back, on the real app."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.client import ApiError
from app.encoders.pool import weights_bytes
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.service import encoders
from tests.service.test_observability import scrape, value

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
