"""Routes on the page of operations: what they take, and the way back of each."""

from playwright.sync_api import Page, expect

from tests.conftest import Service


def test_a_route_says_what_it_takes_and_goes_back_after_a_question(page: Page, stocked: Service) -> None:
    client = stocked.client
    client.set_route("medical", "near", match={"filter": {"key": "topic", "value": "disease"}, "lang": ["de"]})
    client.set_route("medical", "spare", base_languages=["zh"])
    page.goto("/console/operations")
    row = page.locator("#routes").get_by_role("row").nth(1)
    expect(row).to_contain_text("spare@1")
    expect(row).to_contain_text("zh stay on base")
    expect(row).to_contain_text("who names it")
    page.get_by_role("button", name="Roll the route medical back").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("It has spare@1 now.")
    dialog.get_by_role("button", name="Roll back").click()
    expect(row).to_contain_text("near@1")
    expect(row).to_contain_text("topic = disease and language de")
    assert client.route("medical").encoder == "near@1"
    client.remove_route("medical")
