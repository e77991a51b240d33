"""The first visit: an empty service, the samples, a search, and the way to a tuning."""

from collections.abc import Callable

from playwright.sync_api import expect

from tests.conftest import Service
from tests.e2e.conftest import Watched, stored


def test_an_empty_service_offers_the_samples_and_leads_to_a_tuning(
    service: Service, opened: Callable[[Service], Watched]
) -> None:
    context = opened(service).context()
    page = context.new_page()
    page.goto("/")
    expect(page.get_by_role("heading", name="Nothing in here yet")).to_be_visible()
    page.get_by_role("button", name="Take the samples").click()
    page.get_by_role("button", name="Ask a question of the samples").click(timeout=90_000)
    assert service.client.count_passages() == 523
    assert service.client.dataset("beekeeping").queries == 1676
    expect(page.locator(".hit")).to_have_count(10)
    assert "q=bees" in page.url

    page.get_by_role("link", name="Tune").last.click()
    expect(page.get_by_label("name", exact=True)).to_have_value("bees")
    for guard in ("de", "es", "fr", "vi"):
        expect(page.get_by_role("checkbox", name=f"beekeeping:{guard}")).to_be_checked()
    expect(page.get_by_label("max guard loss")).to_have_value("0.05")
    page.get_by_role("button", name="Start tuning").click()
    expect(page.get_by_text("queued").first).to_be_visible()
    expect(page.locator("#trainer")).to_contain_text("none yet")  # who waits wants to know for whom
    job = service.client.tuning_jobs()[0]
    assert (job.name, job.gate["alpha"], job.gate["max_guard_loss"]) == ("bees", 0.2, 0.05)
    assert job.guards == [f"beekeeping:{lang}" for lang in ("de", "es", "fr", "vi")]
    assert job.recipe["soften"] == "auto"

    page.goto("/")
    expect(page.get_by_role("link", name="See the tuning")).to_be_visible()
    page.get_by_role("button", name="Hide").click()
    assert stored(page)["welcome-away"] == "1"
    page.goto("/console/encoders")
    expect(page.get_by_role("heading", name="Only the base so far")).to_be_visible()
    context.close()
