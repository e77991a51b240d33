"""Encoders measured from the page; what was found sorts, and leaves as a table and as a picture."""

import csv

from playwright.sync_api import Page, expect

from tests.conftest import Service

MEASURED_MS = 90_000


def test_an_evaluation_is_started_read_sorted_and_taken_away(page: Page, stocked: Service) -> None:
    page.goto("/console/evaluations")
    page.get_by_role("button", name="Measure encoders").first.click()
    page.get_by_role("checkbox", name="near@1").check()
    for name in ("pumps:de 12", "pumps:test 12"):
        expect(page.get_by_role("checkbox", name=name)).to_be_checked()
    page.get_by_role("button", name="Measure", exact=True).click()
    page.wait_for_url("**/console/evaluations/*")
    page.locator(".cell b").first.wait_for(timeout=MEASURED_MS)

    found = stocked.client.evaluation(page.url.rpartition("/")[2])
    assert found.result is not None
    cell = found.result.matrix["near@1"]["pumps:de"]
    assert cell.difference is not None
    told = page.get_by_title(f"near@1, pumps:de: {cell.mrr:.4f}")
    expect(told.locator("b")).to_have_text(f"{cell.mrr:.3f}")

    page.get_by_role("button", name="questions").click()
    expect(page.get_by_role("columnheader", name="questions")).to_have_attribute("aria-sort", "descending")
    by = page.locator(".picks select").last
    by.select_option("language")
    expect(page.locator(".heat").get_by_role("columnheader", name="pumps:de · de")).to_be_visible()
    by.select_option("dataset")

    with page.expect_download() as table:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(table.value.path().read_text().splitlines()))
    written = next(row for row in rows if (row["encoder"], row["on"]) == ("near@1", "pumps:de"))
    assert float(written["mrr"]) == cell.mrr
    assert float(written["change"]) == cell.difference.change
    with page.expect_download() as picture:
        page.get_by_role("button", name="PNG").click()
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
