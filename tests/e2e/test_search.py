"""Searching and comparing."""

import re

from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.e2e import stock
from tests.e2e.conftest import Watched


def test_a_search_shows_what_the_service_answers_with_its_words_marked(page: Page, stocked: Service) -> None:
    page.goto("/")
    page.get_by_label("Question").fill(stock.QUERY)
    page.keyboard.press("Enter")
    expect(page.locator(".hit")).to_have_count(10)
    answer = stocked.client.search(stock.QUERY)
    assert [hit.get_attribute("data-id") for hit in page.locator(".hit").all()] == [hit.id for hit in answer.hits]
    assert {mark.lower() for mark in page.locator("mark").all_inner_texts()} <= {"water", "pump", "leak"}
    assert f"q={stock.QUERY.split()[0]}" in page.url


def test_the_language_filters_and_the_address_remembers(page: Page) -> None:
    page.goto(f"/?q={stock.QUERY}")
    expect(page.locator(".hit")).to_have_count(10)
    page.get_by_label("Language").select_option("de")
    page.wait_for_url("**lang=de**")
    expect(page.locator(".hit .chip", has_text="German")).to_have_count(10)
    page.reload()
    expect(page.locator(".hit .chip", has_text="German")).to_have_count(10)
    page.go_back()
    expect(page.get_by_label("Language")).to_have_value("")


def test_a_search_by_words_or_by_both_is_chosen_and_the_address_remembers(page: Page, stocked: Service) -> None:
    page.goto(f"/?q={stock.QUERY}")
    expect(page.locator(".hit")).to_have_count(10)
    by = page.get_by_label("Search by")
    for name, mode in (("both", "hybrid"), ("words", "lexical")):
        by.select_option(name)
        page.wait_for_url(f"**mode={mode}**")
        expected = [hit.id for hit in stocked.client.search(stock.QUERY, mode=mode).hits]
        page.reload()
        expect(by).to_have_value(mode)
        expect(page.locator(".hit")).to_have_count(len(expected))
        assert ids(page, ".hit") == expected
    for picker in (page.locator("#encoder"), page.get_by_label("Compare with")):
        expect(picker).to_be_disabled()
    page.locator("#q").fill("zzyzx")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No passage has a word of this")).to_be_visible()
    by.select_option("meaning")
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.locator("#encoder")).to_be_enabled()
    assert "mode=" not in page.url


def test_two_encoders_side_by_side_show_what_moved_what_is_new_and_what_is_lost(page: Page, stocked: Service) -> None:
    page.goto(f"/?q={stock.QUERY}")
    page.locator("#encoder").select_option("near@1")
    page.get_by_label("Compare with").select_option("base@1")
    expect(page.locator(".sides .right li")).to_have_count(10)
    answer = stocked.client.search(stock.QUERY, encoder="near@1", compare_to="base@1")
    assert answer.compared_to is not None
    new = [hit.id for hit in answer.hits if hit.new]
    lost = [hit.id for hit in answer.compared_to.lost]
    assert new, "the encoders must differ"
    assert len(new) < 10
    assert ids(page, ".right li.new") == new
    assert sorted(ids(page, "li.lost")) == sorted(lost)
    expect(page.locator(".overlap")).to_contain_text(f"{10 - len(new)} of 10")
    moves = {
        "rose": sum(not hit.new and (hit.compared_rank or 0) > at for at, hit in enumerate(answer.hits, 1)),
        "fell": sum(not hit.new and (hit.compared_rank or 0) < at for at, hit in enumerate(answer.hits, 1)),
    }
    for kind, count in moves.items():
        expect(page.locator(f".moves .{kind}")).to_have_count(count)
    assert page.locator(".moves path").count() == 10 - len(new)


def ids(page: Page, where: str) -> list[str | None]:
    return [item.get_attribute("data-id") for item in page.locator(where).all()]


def test_what_a_passage_says_is_text_and_never_markup(page: Page) -> None:
    page.goto(f"/?q={stock.QUERY}&lang=fr")
    hit = page.locator("[data-id='evil/<b>']")
    expect(hit).to_contain_text("<img src=x onerror=alert(1)>")
    assert len(hit.inner_text()) < 1_200  # 30,000 characters are cut
    hit.get_by_role("heading").get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("<script>alert(1)</script>")
    assert len(dialog.inner_text()) > 30_000
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.querySelectorAll('main img, main script, main u, main s').length") == 0


def test_a_text_from_right_to_left_is_set_so(page: Page) -> None:
    page.goto("/?q=مضخة الماء تسرب&lang=ar")
    text = page.locator("[data-id=rtl] .text")
    expect(text).to_be_visible()
    assert text.evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_an_encoder_that_is_gone_is_told_by_name(page: Page, watched: Watched) -> None:
    watched.allowed = lambda error: "404" in error
    page.goto("/console/encoders/nobody%407")
    expect(page.get_by_role("heading", name="Not here any more")).to_be_visible()
    expect(page.get_by_text("No encoder nobody@7 is registered")).to_be_visible()


def test_the_keyboard_reaches_the_content_first(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))


def test_a_judgment_is_told_to_the_service_remembered_and_taken_back(page: Page, stocked: Service) -> None:
    query = "a pump  nobody else asks for"
    page.goto(f"/?q={query}")
    expect(page.locator(".hit")).to_have_count(10)
    first, second = (page.locator(".hit").nth(n) for n in (0, 1))
    for hit, button in ((first, ".yes"), (second, ".no")):
        hit.locator(button).click()
        expect(hit.locator(button)).to_have_attribute("aria-pressed", "true")
    told = {each.passage_id: each.relevance for each in stocked.client.judgments(query=query).judgments}
    assert told == {first.get_attribute("data-id"): 1, second.get_attribute("data-id"): 0}
    page.reload()
    expect(first.locator(".yes")).to_have_attribute("aria-pressed", "true")
    expect(second.locator(".no")).to_have_attribute("aria-pressed", "true")
    second.locator(".yes").click()  # on second thoughts
    expect(second.locator(".no")).to_have_attribute("aria-pressed", "false")
    first.locator(".yes").click()
    expect(first.locator(".yes")).to_have_attribute("aria-pressed", "false")
    told = {each.passage_id: each.relevance for each in stocked.client.judgments(query=query).judgments}
    assert told == {second.get_attribute("data-id"): 1}


def test_a_marked_word_stays_in_the_line_of_its_title(page: Page) -> None:
    page.goto(f"/?q={stock.QUERY}")
    title = page.locator(".hit h3 button").first
    assert title.evaluate("element => getComputedStyle(element).display") == "inline-block"
