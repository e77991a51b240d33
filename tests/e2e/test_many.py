"""Ten thousand encoders: lists come in parts, any of them is found by typing, and no page stands still."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import insert

from app.registry import Admission, EncoderState
from app.registry.tables import encoders
from tests.conftest import Service
from tests.e2e.conftest import Watched

MANY, PAGE = 10_000, 80
HEAVY = 200  # of them with figures of a tuning that are long
USABLE_MS, FROZEN_MS = 3_000, 1_000  # the machine may be busy; alone it is a tenth of that
OBSERVE = (
    "window.frozen = 0; new PerformanceObserver((list) => { for (const e of list.getEntries()) "
    "window.frozen = Math.max(window.frozen, e.duration); }).observe({type: 'longtask', buffered: true});"
)


def put_many(service: Service) -> None:
    """Straight into the registry: nobody reads their weights here."""
    base = service.client.encoder("base")
    rows = [
        {
            "name": f"e{n:04}",
            "version": 1,
            "digest": f"sha256:{n:064x}",
            "base_digest": base.digest,
            "parent_digest": base.digest if n % 7 else f"sha256:{n // 2:064x}",
            "admission": Admission.VERIFIED,
            "state": EncoderState.READY,
            "size_bytes": 1,
            "description": "",
            "labels": {},
            "metrics": {
                "dev": {"gain": 0.1},
                "guards": {"other": {"change": -0.0001 * n, "languages": {"x": "y" * (5_000 if n < HEAVY else 1)}}},
            },
            "checks": [],
            "created_at": float(n),
        }
        for n in range(MANY)
    ]
    with service.parts.registry.database.write() as connection:
        connection.execute(insert(encoders), rows)


@pytest.fixture
def context(service: Service, opened: Callable[[Service], Watched]) -> Iterator[BrowserContext]:
    put_many(service)
    context = opened(service).context()
    context.add_init_script(OBSERVE)
    yield context
    context.close()


def look_at(page: Page, path: str, shows: str) -> None:
    """The page is drawn soon, and nothing in it took so long that a finger would wait."""
    page.goto(path)
    page.locator(shows).first.wait_for(state="attached")
    took, frozen = page.evaluate("[performance.now(), window.frozen]")
    assert (took < USABLE_MS, frozen < FROZEN_MS) == (True, True), (path, took, frozen)


def test_ten_thousand_encoders_are_listed_in_parts_and_found_by_typing(context: BrowserContext) -> None:
    page = context.new_page()
    with page.expect_response("**/encoders?*") as answer:
        look_at(page, "/console/encoders", "tbody tr")
    assert len(answer.value.body()) < 100_000
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(PAGE)
    page.get_by_role("button", name=f"Load {PAGE} more").click()
    expect(rows).to_have_count(2 * PAGE)
    tree = page.get_by_role("group", name="What was tuned from what")
    expect(tree.locator(".node")).to_have_count(60)
    expect(tree).to_contain_text("base@1")
    page.get_by_label("Filter by name").fill("E987")
    expect(rows).to_have_count(10)  # e9870 to e9879: on no page that was loaded
    expect(page.get_by_label("Filter by name")).to_be_focused()
    page.get_by_label("Filter by name").fill("<b>")
    expect(rows).to_have_count(0)
    page.get_by_label("Filter by name").fill("")
    expect(rows).to_have_count(PAGE)

    look_at(page, "/", "#encoder option:nth-child(80)")
    picker = page.locator("#encoder")
    expect(picker.locator("option")).to_have_count(PAGE + 2)
    picker.select_option(label="find another …")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Part of its name").fill("e987")
    expect(dialog.get_by_role("listitem")).to_have_count(10)
    dialog.get_by_role("button", name="e9874@1").click()
    expect(picker).to_have_value("e9874@1")
    assert page.url.endswith("encoder=e9874%401")
    page.locator("#compare").select_option(label="find another …")
    page.keyboard.press("Escape")
    expect(page.locator("#compare")).to_have_value("")

    look_at(page, "/console/tuning?new=1", "#job-parent option:nth-child(80)")
    page.locator("#job-parent").select_option(label="find another …")
    dialog.get_by_label("Part of its name").fill("9999@")
    expect(dialog.get_by_role("listitem")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("#job-parent")).to_have_value("e9999@1")
    page.reload()
    expect(page.locator("#job-parent")).to_have_value("e9999@1")

    look_at(page, "/console/evaluations", "#list")
    page.get_by_role("button", name="Measure encoders").first.click()
    page.get_by_role("button", name="Find another …").click()
    dialog.get_by_label("Part of its name").fill("e5000")
    dialog.get_by_role("button", name="e5000@1").click()
    expect(page.get_by_label("e5000@1")).to_be_checked()
