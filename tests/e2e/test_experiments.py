"""Canaries and continuous tuning on the page of operations: what they say, and a canary that is ended there."""

from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.e2e.conftest import Watched


def test_a_canary_says_how_it_does_and_is_ended_after_a_question(page: Page, stocked: Service) -> None:
    client = stocked.client
    before = client.active_encoder().encoder
    other = "near" if before.name != "near" else "spare"
    began = client.start_canary(other, 100, interleave=True, rules=False).encoder.generation
    page.goto("/console/operations")
    panel = page.locator("#experiments")
    row = panel.get_by_role("row").nth(1)
    expect(row).to_contain_text(f"{other}@1")
    expect(row).to_contain_text(f"100%, interleaved beside {before.name}@{before.version}")
    expect(row).to_contain_text("Nothing to tell yet: 0 requests of 0 users")
    row.get_by_role("button", name="End it").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{before.name}@{before.version} answers all searches again")
    dialog.get_by_role("button", name="End the canary").click()
    expect(row).to_contain_text("rollback")
    expect(row.get_by_role("button")).to_have_count(0)
    now = client.active_encoder()
    assert (now.canary, now.encoder.name, now.encoder.generation) == (None, before.name, (began or 0) + 1)


def test_the_way_back_is_called_what_it_does_while_there_is_a_canary(page: Page, stocked: Service) -> None:
    client = stocked.client
    before = client.active_encoder().encoder
    other = "near" if before.name != "near" else "spare"
    client.start_canary(other, 100, interleave=True, rules=False)
    for place in ("operations", "encoders", f"encoders/{before.name}@{before.version}"):
        page.goto(f"/console/{place}")
        expect(page.locator("#actions").get_by_role("button", name=f"End the canary {other}@1")).to_be_visible()
        expect(page.locator("#actions").get_by_role("button", name="Roll back")).to_have_count(0)
    page.locator("#actions").get_by_role("button", name=f"End the canary {other}@1").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{before.name}@{before.version} answers all searches again")
    dialog.get_by_role("button", name="End the canary").click()
    expect(dialog).to_contain_text(f"{before.name}@{before.version} is active")
    assert client.active_encoder().canary is None


def test_a_canary_that_has_ended_meanwhile_ends_nothing_else(page: Page, watched: Watched, stocked: Service) -> None:
    watched.allowed = lambda error: "412" in error  # the browser tells every refusal
    client = stocked.client
    other = "near" if client.active_encoder().encoder.name != "near" else "spare"
    client.start_canary(other, 100, interleave=True, rules=False)
    page.goto("/console/operations")
    page.get_by_role("button", name="End it").click()
    newest = client.start_canary(other, 50, sticky_by="X-User-Id", rules=False).encoder.generation
    dialog = page.get_by_role("dialog")
    with page.expect_response("**/active-encoder/rollback") as answer:
        dialog.get_by_role("button", name="End the canary").click()
    assert answer.value.status == 412
    expect(dialog.get_by_role("alert")).to_have_text("It has ended already; nothing was changed.")
    assert client.active_encoder().encoder.generation == newest
    client.rollback()


def test_continuous_tuning_says_what_it_waits_for_and_what_it_did(page: Page, stocked: Service) -> None:
    stocked.client.set_continuous_tuning("learned", every_hours=1000, dry_run=True)
    page.goto("/console/operations")
    panel = page.locator("#continuous")
    expect(panel).to_contain_text("waiting")
    expect(panel.get_by_role("row").nth(1)).to_contain_text("Every 1000 hours 'learned' is tuned.")
    stocked.client.remove_continuous_tuning()


def test_an_order_of_another_version_says_what_mends_it(page: Page, watched: Watched, stocked: Service) -> None:
    watched.allowed = lambda error: "409" in error  # the browser tells every refusal
    stocked.parts.registry.continuous.set({"name": "learned", "every_moon": 1}, "by another version")
    try:
        page.goto("/console/operations")
        expect(page.locator("#continuous").get_by_role("alert")).to_contain_text("PUT /continuous-tuning sets it anew")
    finally:
        stocked.client.remove_continuous_tuning()
    page.reload()
    expect(page.locator("#continuous")).to_contain_text("The order was taken back.")
