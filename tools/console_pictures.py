"""Pictures of the console for the documents: `python tools/console_pictures.py URL`, where the demo's service runs.

It needs the samples, an encoder tuned on them, and Chromium; what it shows is what the service answers.
"""

import shutil
import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

from app.client import AdiabatClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
QUERY = "bees all in the top brood box after winter with the bottom one empty, switch them"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE = {"width": 1280, "height": 860}


def main(url: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    with AdiabatClient(url) as client:
        job = next(job for job in client.tuning_jobs() if job.status == "succeeded" and job.encoder)
    assert job.encoder is not None
    key = f"{job.encoder.name}@{job.encoder.version}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for scheme, name, path, shows in (
            ("light", "compare", "/?" + urlencode({"q": QUERY, "encoder": key, "compare": "base@1"}), ".moves path"),
            ("light", "job", f"/console/tuning/{job.id}", ".whisker"),
            ("dark", "encoder", f"/console/encoders/{key}", ".whisker"),
        ):
            context = browser.new_context(base_url=url, viewport=WIDE, color_scheme=scheme)  # type: ignore[arg-type]
            context.add_init_script("try { localStorage.setItem('welcome-away', '1') } catch {}")
            take(context.new_page(), path, shows, FOLDER / f"{name}.png")
            context.close()
        browser.close()


def take(page: Page, path: str, shows: str, picture: Path) -> None:
    for _ in range(3):  # the first look at a page waits for what the service loads
        page.goto(path)
    page.locator(shows).first.wait_for(state="attached")
    page.wait_for_timeout(500)  # events of a job that ended come at once, and are drawn with the next frame
    page.screenshot(path=picture)
    print(f"{picture} {picture.stat().st_size // 1000} KB")


if __name__ == "__main__":
    main(sys.argv[1])
