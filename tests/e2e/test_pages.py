"""What holds of every page: nothing wrong is told by the browser, nothing is too wide, too heavy or unreadable."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Response

from tests.conftest import Service
from tests.e2e import stock
from tests.e2e.conftest import Watched

ALL_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
MAX_BYTES = 150_000
MAX_SHIFT = 0.1  # what Google calls good
PHONE = {"width": 390, "height": 844}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    name: str
    path: str
    shows: str  # a selector that is there once the page is drawn


@pytest.fixture(scope="package")
def places(stocked: Service) -> list[Place]:
    """Every page, each with something on it. The job and the evaluation have ended."""
    client = stocked.client
    guards = ["pumps:de", "pumps"]
    job = client.create_tuning_job("tuned", "pumps", guards=guards, recipe=stock.RECIPE, gate=stock.OPEN_GATE)
    evaluation = client.create_evaluation(["pumps", "pumps:de"], ["near", "spare"])
    client.judge(stock.QUERY, "p0", 1, lang="en")
    answer = client.search(stock.QUERY, lang="en")
    client.feedback(answer.search_id, [(answer.hits[0].id, 1)])
    replay = client.create_evaluation(encoders=["near"], replay={"limit": 50})
    assert client.wait_for_job(job.id).status == "succeeded"
    for each in (evaluation, replay):
        assert client.wait_for_evaluation(each.id).status == "succeeded"
    return [
        Place(name="search", path=f"/?q={stock.QUERY}", shows=".hit"),
        Place(name="words", path=f"/?q={stock.QUERY}&mode=lexical", shows=".hit"),
        Place(name="compare", path=f"/?q={stock.QUERY}&encoder=near%401&compare=base%401", shows=".moves path"),
        Place(name="encoders", path="/console/encoders", shows="td a"),
        Place(name="encoder", path="/console/encoders/tuned%401", shows=".whisker"),
        Place(name="tuning", path="/console/tuning", shows="td a"),
        Place(name="new tuning", path="/console/tuning?new=1", shows="#guards input"),
        Place(name="job", path=f"/console/tuning/{job.id}", shows=".whisker"),
        Place(name="evaluations", path="/console/evaluations", shows="td a"),
        Place(name="evaluation", path=f"/console/evaluations/{evaluation.id}", shows=".cell b"),
        Place(name="replay", path=f"/console/evaluations/{replay.id}", shows="td a"),
        Place(name="queries", path="/console/queries", shows="td a"),
        Place(name="judgments", path="/console/judgments", shows="td a"),
        Place(name="data", path="/console/data", shows="#languages .bar"),
        Place(name="operations", path="/console/operations", shows="dl.facts dd"),
    ]


def visited(page: Page, places: list[Place]) -> Iterator[Place]:
    for place in places:
        page.goto(place.path)
        page.locator(place.shows).first.wait_for(state="attached")
        yield place


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_accessible_in_light_and_in_dark(watched: Watched, places: list[Place], theme: str) -> None:
    context = watched.context(color_scheme=theme, bypass_csp=True)  # axe is put in by hand
    page, axe = context.new_page(), Axe()
    rules = ALL_RULES if theme == "light" else ["color-contrast"]  # all that the dark can change
    for place in visited(page, places):
        found = axe.run(page, options={"runOnly": rules})
        serious = [each for each in found.response["violations"] if each["impact"] in ("serious", "critical")]
        told = [(each["id"], [node["html"][:160] for node in each["nodes"][:3]]) for each in serious]
        assert told == [], place.name
    context.close()


def test_no_page_is_wider_than_a_phone(watched: Watched, places: list[Place]) -> None:
    context = watched.context(viewport=PHONE, has_touch=True)
    page = context.new_page()
    for place in visited(page, places):
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, place.name
    context.close()


def test_every_page_is_light_in_bytes(watched: Watched, places: list[Place]) -> None:
    assert {place.name: weight for place in places if (weight := weighed(watched, place)) > MAX_BYTES} == {}


def weighed(watched: Watched, place: Place) -> int:
    """The bytes that came for all that the page asked for, with an empty cache."""
    context = watched.context()
    page = context.new_page()
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    for _ in visited(page, [place]):
        page.wait_for_load_state("load")
    counted = [each for each in answers if each.status == 200 and "/events" not in each.url]
    weight = sum(each.request.sizes()["responseBodySize"] for each in counted)
    context.close()
    return weight


def test_no_page_moves_under_the_finger(watched: Watched, places: list[Place]) -> None:
    context = watched.context()
    page = context.new_page()
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const e of list.getEntries()) "
        "if (!e.hadRecentInput) window.shift += e.value; }).observe({type: 'layout-shift', buffered: true});"
    )
    for place in visited(page, places):
        page.wait_for_load_state("load")
        assert page.evaluate("window.shift") < MAX_SHIFT, place.name
    context.close()


def test_dark_follows_the_system_and_the_button_overrules_and_is_remembered(watched: Watched) -> None:
    context = watched.context(color_scheme="dark")
    page = context.new_page()
    page.goto("/")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Switch between light and dark").click()
    light = page.evaluate(paper)
    assert light != dark
    page.goto("/console/encoders")
    assert page.evaluate(paper) == light
    context.close()
