"""The query log as a list, forgotten one by one; a replay of it, and from its largest change to the two answers."""

from playwright.sync_api import Page, expect

from tests.conftest import Service

MEASURED_MS = 90_000


def test_what_was_asked_is_listed_in_pages_and_forgotten(page: Page, stocked: Service) -> None:
    client = stocked.client
    for n in range(52):
        answer = client.search(f"<b>why</b> {n}", limit=3, lang="de")
    client.feedback(answer.search_id, [(answer.hits[1].id, 2)])
    page.goto("/console/judgments")
    page.get_by_role("link", name="What was asked").click()
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("<b>why</b> 51")
    expect(rows.first).to_contain_text(f"2. {answer.hits[1].id}")
    rows.first.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    expect(rows.first).to_contain_text("<b>why</b> 50")
    assert answer.search_id not in {each.search_id for each in client.queries().searches}
    page.get_by_role("button", name="Older").click()
    expect(page.get_by_text("<b>why</b> 0", exact=True)).to_be_visible()


def test_a_replay_tells_what_would_change_and_leads_to_the_answers(page: Page, stocked: Service) -> None:
    client = stocked.client
    for n in range(3):
        client.search(f"water pump {n}", lang="en")
    made = client.create_evaluation(encoders=["near"], replay={"limit": 3})
    done = client.wait_for_evaluation(made.id)
    assert done.result is not None
    assert done.result.replay is not None
    told = done.result.replay.encoders["near@1"]
    page.goto(f"/console/evaluations/{made.id}")
    expect(page.locator("tbody tr").first).to_contain_text(f"{told.overlap:.3f}", timeout=MEASURED_MS)
    assert told.changes
    page.get_by_role("link", name=told.changes[0].query).click()
    expect(page.get_by_label("Question")).to_have_value(told.changes[0].query)
    expect(page.locator(".moves")).to_be_visible()
