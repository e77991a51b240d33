"""The way in by a key, and what its cookie does not open."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from app.settings import Settings
from tests.conftest import Service, running
from tests.e2e.conftest import Watched

KEY = "correct horse battery"


@pytest.fixture
def locked(settings: Settings) -> Iterator[Service]:
    with running(settings.model_copy(update={"api_key": KEY})) as service:
        yield service


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_who_has_the_key_signs_in_and_out_and_lands_where_they_wanted(
    locked: Service, opened: Callable[[Service], Watched]
) -> None:
    watched = opened(locked)
    watched.allowed = lambda error: "403" in error or "401" in error  # the browser tells every refusal
    context = watched.context()
    page = context.new_page()
    page.goto("/console/encoders?x=1")
    sign_in(page, "wrong horse battery")
    expect(page.get_by_role("alert")).to_contain_text("not the service's key")
    sign_in(page, KEY)
    page.wait_for_url("**/console/encoders?x=1")
    expect(page.locator("#serving")).to_contain_text("base@1")
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert KEY not in cookie["value"]
    assert page.evaluate("document.cookie") == ""

    # The cookie is there, and yet a write without the page's token is refused.
    plain = "fetch('/active-encoder/rollback', {method: 'POST'}).then((answer) => answer.status)"
    assert page.evaluate(plain) == 401
    page.goto("/console/data")
    page.get_by_role("button", name="take the samples").wait_for()

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/console/login")
    page.goto("/")
    expect(page.get_by_label("API key")).to_be_visible()
    context.close()


def test_a_session_that_ended_says_so_and_keeps_what_was_typed(
    locked: Service, opened: Callable[[Service], Watched]
) -> None:
    watched = opened(locked)
    watched.allowed = lambda error: "401" in error
    context = watched.context()
    page = context.new_page()
    page.goto("/")
    sign_in(page, KEY)
    expect(page.locator("#serving")).to_contain_text("base@1")
    page.get_by_label("Question").fill("water pump")
    context.clear_cookies()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(page.get_by_label("Question")).to_have_value("water pump")
    context.close()


def test_a_page_of_another_origin_writes_nothing(service: Service, opened: Callable[[Service], Watched]) -> None:
    """Without a key too: a form needs no permission to be sent."""
    watched = opened(service)
    watched.allowed = lambda _: True  # the other page's own
    context = watched.context()
    page = context.new_page()
    elsewhere = "http://localhost:9/"
    form = f"<form method=post action='{service.url}/active-encoder/rollback'><button>go</button></form>"
    context.route(elsewhere, lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(elsewhere)
    with page.expect_response("**/active-encoder/rollback") as answer:
        page.get_by_role("button").click()
    assert answer.value.status == 403
    assert answer.value.json()["type"] == "urn:adiabat:problem:cross-site"
    context.close()
