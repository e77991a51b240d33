"""A real browser over the real service. Skipped, with the reason, where no Chromium is installed."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import Service, running
from tests.e2e import stock
from tests.service.evaluations import working

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
PATIENCE_MS = 20_000  # for one thing to show; the machine may be busy
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if FOUND is None:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no Chromium here (on Debian: apt-get install chromium)"))


# Of the package, not the session: while it lives, no other test in this thread can run an event loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=FOUND, args=list(ARGUMENTS))
        yield launched
        launched.close()


class Watched:
    """Contexts whose pages must not complain: every error that the browser tells is a failure of the test."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self.errors: list[str] = []
        self.allowed: Callable[[str], bool] = lambda _: False

    def context(self, **options: object) -> BrowserContext:
        context = self._browser.new_context(
            base_url=self._url, **{"viewport": {"width": 1280, "height": 900}, **options}
        )  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("console", lambda said: said.type in ("error", "warning") and self.errors.append(said.text))
        context.on("request", lambda request: self._only_here(request))
        return context

    def _only_here(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.errors.append(f"asked for {request.url}")

    def check(self) -> None:
        assert [error for error in self.errors if not self.allowed(error)] == []


@contextmanager
def one_thread() -> Iterator[None]:
    """A tuning of something tiny: several threads would only wait for each other where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="package")
def stocked(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that holds passages, a dataset, two encoders besides the base, an evaluation; a trainer works."""
    folder = tmp_path_factory.mktemp("stocked")
    settings = _settings(seeded, tiny, folder)
    with one_thread(), running(settings) as service, working(settings):
        stock.fill(service, tiny, settings.source_dirs[0])
        yield service


def _settings(seeded: Path, tiny: Path, folder: Path) -> Settings:
    copy_tree(seeded, folder / "data")
    (folder / "sources").mkdir()
    return Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        trainer=False,
        source_dirs=(folder / "sources",),
        threads=1,
        query_log=1,
    )


@pytest.fixture
def watched(browser: Browser, stocked: Service) -> Iterator[Watched]:
    made = Watched(browser, stocked.url)
    yield made
    made.check()


@pytest.fixture
def page(watched: Watched) -> Iterator[Page]:
    """A page over the stocked service. The first steps are sent away: they have a test of their own."""
    context = watched.context()
    context.add_init_script("try { localStorage.setItem('welcome-away', '1') } catch {}")  # about:blank has none
    yield context.new_page()
    context.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[[Service], Watched]]:
    """Pages over a service of the test's own."""
    with ExitStack() as stack:

        def open_over(service: Service) -> Watched:
            made = Watched(browser, service.url)
            stack.callback(made.check)
            return made

        yield open_over


def stored(page: Page) -> dict[str, object]:
    found: dict[str, object] = json.loads(page.evaluate("JSON.stringify({...localStorage})"))
    return found
