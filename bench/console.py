"""How soon each page of the console is drawn and takes a click, on this machine, and what it transfers:

    python bench/console.py [--work FOLDER] [--json FILE]

A service of its own with the samples; Chromium with an empty cache for each page. "drawn" is from the start of the
navigation until what the page is for is there, "blocked" the longest task that kept it from taking a click.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Response, sync_playwright
from residency import service

from app.client import AdiabatClient

ROUNDS = 5
ROOM = 2**30
CORPUS = Path(__file__).parent.parent / "samples" / "corpus.jsonl"
PAGES = {  # by path: what is there once it is drawn
    "/?q=bees+in+the+top+box": ".hit",
    "/console/encoders": "td a",
    "/console/encoders/base%401": "dl.facts dd",
    "/console/tuning": ".empty",
    "/console/tuning?new=1": "input[name=name]",
    "/console/evaluations": ".empty",
    "/console/judgments": "td a",
    "/console/data": "#languages .bar",
    "/console/operations": "dl.facts dd",
}
TASKS = """() => new Promise((done) => new PerformanceObserver((list) =>
  done(Math.max(...list.getEntries().map((task) => task.duration)))).observe({ type: "longtask", buffered: true })
  || setTimeout(() => done(0), 50))"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keeps the service's data for the next run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with TemporaryDirectory() as folder, service(given.work or Path(folder), ROOM) as (_, client):
        subprocess.run([sys.executable, "-m", "app.cli", "ingest", str(CORPUS), "--url", client.url], check=True)
        client.judge("bees in the top box", "en-181", 1, lang="en")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            rows = {path: measure(browser, client, path, shows) for path, shows in PAGES.items()}
            browser.close()
    for path, row in rows.items():
        print(f"{path:<34}" + "".join(f"{name} {value:>8.1f}   " for name, value in row.items()))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(browser: Browser, client: AdiabatClient, path: str, shows: str) -> dict[str, float]:
    """Medians over the rounds."""
    drawn, blocked, sizes = [], [], []
    for _ in range(ROUNDS):
        page = browser.new_page(base_url=client.url)
        answers: list[Response] = []
        page.on("response", lambda answer, kept=answers: kept.append(answer))
        page.goto(path, wait_until="commit")
        page.locator(shows).first.wait_for(state="attached")
        drawn.append(page.evaluate("performance.now()"))
        blocked.append(page.evaluate(TASKS))
        sizes.append(sum(each.request.sizes()["responseBodySize"] for each in answers) / 1e3)
        page.close()
    return {
        "drawn ms": statistics.median(drawn),
        "blocked ms": statistics.median(blocked),
        "KB": statistics.median(sizes),
    }


if __name__ == "__main__":
    main()
