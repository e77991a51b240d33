"""The way in by a key, and what its cookie does not open."""

from collections.abc import Callable, Iterator
from typing import Literal

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
    expect(page.get_by_role("alert")).to_contain_text("opens nothing here")
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


@pytest.mark.parametrize("scope", ["search", "write", "admin"])
def test_what_a_key_may_not_do_is_withheld_with_a_reason(
    locked: Service, opened: Callable[[Service], Watched], scope: Literal["search", "write", "admin"]
) -> None:
    """By whatever key one signs in; what the pages ask for on their own is never refused."""
    locked.client.upsert_passages([{"id": "a", "text": "the water pump"}])
    context = opened(locked).context()
    page = context.new_page()
    page.goto("/")
    sign_in(page, locked.client.create_key("mine", scope=scope).key)
    expect(page.locator("#signed-in")).to_contain_text(f"mine ({scope})")
    page.goto("/?q=water")
    expect(page.locator(".hit").first).to_be_visible()
    expect(page.locator(".judge")).to_have_count(0 if scope == "search" else 1)
    page.goto("/console/tuning")
    new = page.get_by_role("button", name="New tuning")
    if scope == "search":
        expect(new).to_be_disabled()
        assert "scope write; yours has search" in (new.get_attribute("title") or "")
    else:
        expect(new).to_be_enabled()
    switches = page.locator("option[value=if-gate-passes]")
    assert switches.evaluate("(option) => option.disabled") is (scope != "admin")
    page.goto("/console/data")
    delete = page.get_by_role("button", name="Delete the water pump")
    (expect(delete).to_be_disabled if scope == "search" else expect(delete).to_be_enabled)()
    page.goto("/console/encoders/base@1")
    export = page.get_by_role("button", name="Export")
    (expect(export).to_be_disabled if scope == "search" else expect(export).to_be_enabled)()
    page.goto("/console/judgments")
    told = "Needs a key with the scope write; yours has search." if scope == "search" else "Nothing judged yet"
    expect(page.locator("#page")).to_contain_text(told)
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    page.goto("/console/operations")
    expect(page.locator("dl.facts dd").first).to_be_visible()
    audit = page.locator("#audit")
    if scope == "admin":
        expect(audit).to_contain_text("key-made")
        expect(audit).to_contain_text("ADIABAT_API_KEY")
    else:
        expect(audit).to_have_count(0)
    locked.client.revoke_key("mine")  # and with it the session
    page.goto("/console/encoders")
    expect(page.get_by_label("API key")).to_be_visible()
    context.close()
