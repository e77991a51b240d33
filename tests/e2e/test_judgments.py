"""What was judged, as a list: by language, in pages, and taken back."""

from playwright.sync_api import Page, expect

from tests.conftest import Service


def test_judgments_are_listed_by_language_paged_and_taken_back(page: Page, stocked: Service) -> None:
    client = stocked.client
    for n in range(62):
        client.judge(f"<b>why</b> {n}", f"p{n}", n % 4, lang="de" if n < 60 else "xx")
    page.goto("/console/judgments?lang=de")
    rows = page.locator("tbody tr")
    expect(page.get_by_role("status").first).to_have_text("1 to 50 of 60, newest first")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("<b>why</b> 59")
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(10)
    expect(rows.last).to_contain_text("not relevant")

    rows.last.get_by_role("button", name="Take back").click()
    page.get_by_role("dialog").get_by_role("button", name="Take back").click()
    expect(rows).to_have_count(9)
    assert client.judgments(query="<b>why</b> 0").count == 0
    page.get_by_role("button", name="Newer").click()
    expect(page.get_by_role("status").first).to_have_text("1 to 50 of 59, newest first")

    page.get_by_label("Language").select_option(label="xx (2)")
    expect(rows).to_have_count(2)
    assert page.url.endswith("?lang=xx")
    client.judge("<b>why</b> 61", "rtl", 1, lang="xx")
    page.reload()
    expect(rows).to_have_count(3)
    rows.first.get_by_role("button", name="rtl", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("مضخة")
    page.keyboard.press("Escape")
    rows.first.get_by_role("link").click()
    expect(page.get_by_label("Question")).to_have_value("<b>why</b> 61")
    for each in client.judgments(limit=1000).judgments:
        if each.query.startswith("<b>"):
            client.delete_judgment(each.id)
