"""Several services on one registry: a switch that is not yet everywhere says so, and who is behind and why."""

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.conftest import Service
from tests.e2e.conftest import Watched
from tests.service.hindered_service import BROKEN
from tests.service.test_replicas import clustered

WHY = "the disk of this replica is gone"


def switch(page: Page, key: str) -> None:
    page.goto(f"/console/encoders/{key}")
    page.get_by_role("button", name="Switch to it").click()


def test_a_switch_that_is_not_yet_everywhere_names_who_is_behind_until_nobody_is(
    browser: Browser, seeded: Path, tiny: Path, tmp_path: Path, qdrant: str
) -> None:
    with clustered(seeded, tiny, tmp_path, qdrant, None) as cluster:
        here, there = cluster.members
        cluster.hinder(BROKEN)
        watched = Watched(browser, here.client.url)
        context = watched.context()
        page = context.new_page()
        switch(page, "bees@1")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("in each of the 2 live replicas")
        with page.expect_response("**/active-encoder") as answer:
            dialog.get_by_role("button", name="Switch").click()
        assert answer.value.status == 202
        expect(dialog.get_by_role("heading")).to_have_text("bees@1 is active, but not yet everywhere")
        expect(dialog).to_contain_text("1 of 2 have it")
        name = answer.value.json()["replicas"]["behind"][0]["name"]
        assert name.endswith(f"-{there.child.pid}")
        expect(dialog.locator(".behind")).to_contain_text(name)
        expect(dialog.locator(".behind")).to_contain_text(WHY)

        operations = context.new_page()
        operations.goto("/console/operations")
        expect(operations.locator("#replicas")).to_contain_text("2 live. Generation 2: 1 of 2 have it")
        expect(operations.locator("#replicas")).to_contain_text(f"{name} answers with generation 1")
        theirs = Watched(browser, there.client.url)  # the one that is behind says it of itself
        other = theirs.context().new_page()
        other.goto("/console/operations")
        expect(other.locator("#replicas")).to_contain_text("2 live. Generation 2: 1 of 2 have it")
        other.context.close()
        cluster.free()
        expect(dialog).to_contain_text("All 2 live replicas have generation 2 now.")
        expect(dialog.get_by_role("heading")).to_have_text("bees@1 is active")
        expect(operations.locator("#replicas")).to_contain_text("2 live. Generation 2: all 2 have it")
        context.close()
        watched.check()
        theirs.check()


def test_one_that_serves_alone_has_no_replicas_to_wait_for(page: Page, stocked: Service) -> None:
    name = "near" if stocked.client.active_encoder().encoder.name != "near" else "spare"
    switch(page, f"{name}@1")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Switch").click()
    expect(dialog.get_by_role("heading")).to_have_text(f"{name}@1 is active")
    expect(dialog).to_contain_text("use it now")
    expect(dialog).not_to_contain_text("eplica")
    page.goto("/console/operations")
    expect(page.locator("dl.facts dd").first).to_be_visible()
    expect(page.locator("#replicas")).to_be_hidden()
    stocked.client.activate("base@1")
