"""A passage of 100 KB: told as text, cut where it is one of many, whole where somebody asks for it."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.conftest import Service
from tests.e2e.conftest import Watched

EVIL = "<script>alert(1)</script> <b>bold</b> water "
TEXT = EVIL * (100_000 // len(EVIL))
METADATA = {"lang": "en"} | {f"<i>{n}</i>": f"<u>value {n}</u>" for n in range(500)}
MOST_NODES, MOST_CHARS = 1_500, 20_000  # of a whole page with ten of them


@pytest.mark.parametrize("settings", [{"max_text_chars": 120_000}], indirect=True)
def test_a_passage_of_100_kilobytes_is_escaped_cut_and_whole_on_demand(
    service: Service, opened: Callable[[Service], Watched]
) -> None:
    passages = [{"id": f"big{n}", "title": "<s>Big</s>", "text": TEXT, "metadata": METADATA} for n in range(10)]
    service.client.upsert_passages(passages)
    context = opened(service).context()
    page = context.new_page()
    weight = "[document.querySelectorAll('*').length, document.body.innerText.length]"

    for path, shows in (
        ("/?q=water", ".hit"),
        ("/?q=water&encoder=base%401&compare=base%401", ".right li"),
        ("/console/data", "td"),
    ):
        page.goto(path)
        page.locator(shows).first.wait_for()
        nodes, chars = page.evaluate(weight)
        assert (nodes < MOST_NODES, chars < MOST_CHARS) == (True, True), (path, nodes, chars)
        assert (
            page.evaluate(
                "document.querySelectorAll('main :is(s, u, i:not(.score-bar i, .bar i, .pips i), script)').length"
            )
            == 0
        )

    page.goto("/?q=water")
    hit = page.locator(".hit").first
    expect(hit).to_contain_text("<script>alert(1)</script>")
    expect(hit).to_contain_text("+495")
    hit.get_by_role("button", name="more of").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".whole")).to_contain_text("<b>bold</b>")
    assert dialog.locator(".whole").inner_text().strip() == TEXT.strip()
    dialog.get_by_text("All metadata").click()
    expect(dialog.locator("pre")).to_contain_text("<u>value 499</u>")
    assert page.evaluate("document.querySelectorAll('dialog :is(s, u, i, script)').length") == 0
    assert page.evaluate(weight)[0] < 2 * MOST_NODES
    context.close()
