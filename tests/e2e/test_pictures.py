"""The console's pictures in README and docs, of a real tuning on the samples: this test makes them (`make nightly`)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from app.client import AdiabatClient
from app.settings import Settings
from tests.conftest import process

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
QUERY = "bees all in the top brood box after winter with the bottom one empty, switch them"
WIDE = {"width": 1280, "height": 860}
PNG = b"\x89PNG"
BLANK_BYTES = 30_000  # an empty page of this size is well below


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AdiabatClient, str, str]]:
    """A service with the samples on the packaged model; its job's id and the encoder that it made."""
    with process(Settings(data_dir=tmp_path_factory.mktemp("pictured") / "data")) as (_, client):
        for words in (
            ("ingest", "samples/corpus.jsonl"),
            ("datasets", "put", "beekeeping", "samples", "--no-corpus"),
        ):
            subprocess.run([sys.executable, "-m", "app.cli", *words, "--url", client.url], cwd=ROOT, check=True)
        gate = {"max_guard_loss": 0.05, "alpha": 0.2}
        guards = ["beekeeping:de", "beekeeping:es"]
        job = client.wait_for_job(client.create_tuning_job("bees", "beekeeping", guards=guards, gate=gate).id)
        assert job.encoder is not None
        yield client, job.id, f"{job.encoder.name}@{job.encoder.version}"


@pytest.mark.parametrize(("name", "theme"), [("compare", "light"), ("job", "light"), ("encoder", "dark")])
def test_the_pictures_show_what_the_service_answers(
    browser: Browser, tuned: tuple[AdiabatClient, str, str], name: str, theme: str
) -> None:
    client, job_id, key = tuned
    path, shows = {
        "compare": ("/?" + urlencode({"q": QUERY, "encoder": key, "compare": "base@1"}), ".moves path"),
        "job": (f"/console/tuning/{job_id}", ".whisker"),
        "encoder": (f"/console/encoders/{key}", ".whisker"),
    }[name]
    context = browser.new_context(base_url=client.url, viewport=WIDE, color_scheme=theme)  # type: ignore[arg-type]
    context.add_init_script("try { localStorage.setItem('welcome-away', '1') } catch {}")
    page = context.new_page()
    for _ in range(3):  # the first look at a page waits for what the service loads
        page.goto(path)
    page.locator(shows).first.wait_for(state="attached")
    page.wait_for_timeout(500)  # events of a job that ended come at once, and are drawn with the next frame
    picture = IMAGES / f"{name}.png"
    page.screenshot(path=picture)
    context.close()
    assert picture.read_bytes()[:4] == PNG
    assert picture.stat().st_size > BLANK_BYTES
