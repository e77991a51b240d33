"""The service goes away under an open page, and comes back."""

from collections.abc import Callable

from playwright.sync_api import Route, expect

from tests.conftest import Service
from tests.e2e import stock
from tests.e2e.conftest import Watched


def test_a_service_that_is_away_is_told_calmly_and_nothing_typed_is_lost(
    stocked: Service, opened: Callable[[Service], Watched]
) -> None:
    watched = opened(stocked)
    watched.allowed = lambda error: "ERR_CONNECTION" in error
    context = watched.context()
    page = context.new_page()
    page.goto("/console/tuning?new=1")
    page.locator("#guards input").first.wait_for()
    page.get_by_label("name", exact=True).fill("patient")

    def refuse(route: Route) -> None:
        route.abort("connectionrefused")

    context.route("**/*", refuse)
    page.get_by_role("button", name="Start tuning").click()
    banner = page.locator("#banner")
    expect(banner).to_contain_text("does not answer")
    expect(page.get_by_label("name", exact=True)).to_have_value("patient")
    context.unroute("**/*", refuse)
    page.get_by_role("button", name="Try now").click()
    expect(banner).to_contain_text("is back")
    expect(page.get_by_label("name", exact=True)).to_have_value("patient")
    page.goto(f"/?q={stock.QUERY}")
    expect(page.locator(".hit")).to_have_count(10)
    context.close()
