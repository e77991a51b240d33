"""More encoders than a page holds: they come in parts."""

from collections.abc import Callable

from playwright.sync_api import expect

from app.registry import Admission
from app.registry.encoders import NewEncoder
from tests.conftest import Service
from tests.e2e.conftest import Watched

MANY, PAGE = 200, 80


def test_many_encoders_are_listed_and_picked_in_parts(service: Service, opened: Callable[[Service], Watched]) -> None:
    base = service.client.encoder("base")
    for n in range(MANY):
        new = NewEncoder(
            name=f"e{n:03}",
            digest=f"sha256:{n:064x}",
            base_digest=base.digest,
            parent_digest=base.digest,
            admission=Admission.VERIFIED,
            size_bytes=1,
            labels={},
            metrics={"dev": {"gain": 0.1}, "guards": {"other": {"change": -0.01 * n, "languages": {"x": "y" * 5_000}}}},
            checks=[],
        )
        service.parts.registry.encoders.add(new, lambda _: None)
    context = opened(service).context()
    page = context.new_page()
    with page.expect_response("**/encoders?*") as answer:
        page.goto("/console/encoders")
    assert len(answer.value.body()) < 100_000
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(PAGE)
    page.get_by_role("button", name=f"Load {PAGE} more").click()
    expect(rows).to_have_count(2 * PAGE)
    page.get_by_label("Filter by name").fill("e15")
    expect(rows).to_have_count(9)  # e150 to e158: the base is the first of all

    page.goto("/")
    picker = page.locator("#encoder")
    expect(picker.locator("option")).to_have_count(PAGE + 2)
    picker.select_option(label="more …")
    expect(picker.locator("option")).to_have_count(2 * PAGE + 2)
    expect(picker).to_have_value("")
    context.close()
