"""Pages of other origins: none may call, but those that a setting names, and those never by a session."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import Service, running
from tests.service.keys import SERVICE_KEY, as_bearer, refused

SHOP, OTHER = "https://shop.example", "https://other.example"
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def service_with(seeded: Path, tiny: Path, folder: Path, origins: tuple[str, ...]) -> Settings:
    copy_tree(seeded, folder / "data")
    return Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        trainer=False,
        threads=1,
        api_key=SERVICE_KEY,
        cors_origins=origins,
    )


@pytest.fixture(scope="module")
def shopped(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(service_with(seeded, tiny, tmp_path_factory.mktemp("cors"), (SHOP,))) as service:
        yield service


@pytest.fixture
def browser(shopped: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shopped.url, trust_env=False) as http:
        yield http


def from_page(origin: str) -> dict[str, str]:
    return {"Origin": origin, "Sec-Fetch-Site": "cross-site"}


def test_without_the_setting_no_answer_speaks_of_origins(seeded: Path, tiny: Path, tmp_path: Path) -> None:
    with running(service_with(seeded, tiny, tmp_path, ())) as service:
        asked = httpx.options(f"{service.url}/search", headers={"Origin": SHOP, **ASKS}, trust_env=False)
        assert asked.status_code >= 400
        read = httpx.get(f"{service.url}/version", headers={"Origin": SHOP}, trust_env=False)
        assert not [name for answer in (asked, read) for name in answer.headers if name.startswith("access-control")]


def test_a_named_origin_is_told_what_it_may_and_others_are_not(browser: httpx.Client) -> None:
    told = browser.options("/search", headers={"Origin": SHOP, **ASKS})
    assert (told.status_code, told.headers["access-control-allow-origin"]) == (200, SHOP)
    assert "Authorization" in told.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in told.headers
    untold = browser.options("/search", headers={"Origin": OTHER, **ASKS})
    assert untold.status_code == 400
    assert "access-control-allow-origin" not in untold.headers


def test_a_named_origins_page_brings_a_key_and_others_write_nothing(browser: httpx.Client) -> None:
    body, key = {"query": "water"}, as_bearer(SERVICE_KEY)
    found = browser.post("/search", json=body, headers={**from_page(SHOP), **key})
    assert (found.status_code, found.headers["access-control-allow-origin"]) == (200, SHOP)
    assert "ETag" in found.headers["access-control-expose-headers"]
    without = browser.post("/search", json=body, headers=from_page(SHOP))
    assert refused(without) == (401, "unauthorized")
    assert without.headers["access-control-allow-origin"] == SHOP  # the page may read why
    assert refused(browser.post("/search", json=body, headers={**from_page(OTHER), **key})) == (403, "cross-site")


def test_no_session_is_lent_to_a_named_origin(browser: httpx.Client) -> None:
    browser.post("/console/login", data={"key": SERVICE_KEY})
    found = re.search(r'name="adiabat-token" content="([0-9a-f]{64})"', browser.get("/").text)
    assert found is not None
    with_token = {"X-Adiabat-Token": found[1]}
    assert browser.post("/search", json={"query": "x"}, headers=with_token).status_code == 200
    assert browser.post("/search", json={"query": "x"}, headers={**from_page(SHOP), **with_token}).status_code == 401
    assert browser.get("/encoders", headers=from_page(SHOP)).status_code == 401


@pytest.mark.parametrize("given", ["*", "shop.example", "https://shop.example/", "https://*.example", "null"])
def test_what_is_no_origin_is_no_setting(given: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=given)  # type: ignore[arg-type]
    assert Settings(cors_origins="https://a.example, http://[::1]:3000").cors_origins == (  # type: ignore[arg-type]
        "https://a.example",
        "http://[::1]:3000",
    )
