"""Clicks as judgments: estimates against simulated users whose looking is known, and floods that do not count."""

import itertools

import numpy as np
import pytest

from app.clicks import DAY_S, MAX_WEIGHT, MIN_RELEVANCE, to_judgments, weight
from app.registry import Click, LoggedSearch
from app.registry.judgments import id_of

PASSAGES = [f"p{n}" for n in range(10)]
MANY = 10**6
ids = itertools.count()


def search(
    clicked: list[int], *, query: str = "why", key: str | None = None, at: float = 0.0, lang: str | None = None
) -> LoggedSearch:
    """`clicked`: positions in `PASSAGES`, from 1."""
    number = next(ids)
    return LoggedSearch(
        sequence=number,
        search_id=f"{np.random.default_rng(number).integers(2**63):032x}",
        at=at,
        key=key,
        query_id=id_of(query),
        query=query,
        lang=lang,
        filter=None,
        encoder="base@1",
        generation=1,
        offset=0,
        shown=PASSAGES,
        clicks=tuple(Click(passage_id=PASSAGES[k - 1], position=k, at=at + 1) for k in clicked),
    )


def pairs(searches: list[LoggedSearch], *, eta: float = 1.0, per_key: int = MANY) -> set[tuple[str, str]]:
    return {(each.query, each.passage_id) for each in to_judgments(searches, eta=eta, per_key=per_key)}


def test_a_weight_is_the_inverse_of_the_propensity_and_clipped() -> None:
    assert [weight(k, 1.0) for k in (1, 2, 7, 10, 400)] == [1, 2, 7, MAX_WEIGHT, MAX_WEIGHT]
    assert [weight(k, 0.0) for k in (1, 400)] == [1, 1]
    assert weight(4, 0.5) == 2


def test_the_position_is_taken_out_of_simulated_clicks() -> None:
    """Users look at rank k with 1/k and click what they find relevant: p1 seldom, p6 mostly. By the mere number of
    clicks the two cannot be told apart."""
    rng = np.random.default_rng(7)
    relevance = dict.fromkeys(range(1, 11), 0.0) | {1: 0.15, 6: 0.9}
    seen = [
        [k for k, relevant in relevance.items() if rng.random() < 1 / k and rng.random() < relevant]
        for _ in range(4_000)
    ]
    first, sixth = (sum(k in clicked for clicked in seen) for k in (1, 6))
    assert first == pytest.approx(sixth, rel=0.2)
    assert pairs([search(clicked) for clicked in seen]) == {("why", "p5")}
    assert pairs([search(clicked) for clicked in seen], eta=0) == set()  # both are below what counts as relevant


def test_what_is_seldom_clicked_when_it_is_shown_is_not_relevant() -> None:
    shown = [search([]) for _ in range(round(1 / MIN_RELEVANCE))]
    assert pairs([*shown[1:], search([1])]) == {("why", "p0")}
    assert pairs([*shown, search([1])]) == set()
    assert pairs([*shown, search([2])]) == {("why", "p1")}


def test_a_judgment_says_when_the_pair_was_first_and_last_clicked_and_in_which_language() -> None:
    found = to_judgments(
        [search([1], at=10, lang="de"), search([], at=20, lang="en"), search([1, 2], at=30)], eta=1, per_key=MANY
    )
    assert [(each.passage_id, each.relevance, each.lang) for each in found] == [("p0", 1, "en"), ("p1", 1, "en")]
    assert [(each.first_judged_at, each.judged_at) for each in found] == [(11, 31), (31, 31)]
    assert found[0].id == id_of("why", "p0")


def test_a_flood_from_one_key_weighs_no_more_than_its_share_of_a_day() -> None:
    honest = [search([3], query="why", key=f"k{n}", at=n) for n in range(20)]
    flood = [search([1], query="why", key="bot", at=1) for _ in range(2_000)]
    junk = [search([1], query=f"junk {n}", key="bot", at=1) for n in range(500)]
    assert pairs(honest) == {("why", "p2")}
    assert ("why", "p2") not in pairs(honest + flood + junk)  # what it would do unbounded
    found = pairs(honest + flood + junk, per_key=10)
    assert ("why", "p2") in found
    assert len(found) <= 12
    assert len(pairs(junk, per_key=10)) == 10
    tomorrow = [search([1], query=f"more {n}", key="bot", at=DAY_S + n) for n in range(50)]
    assert len(pairs(junk + tomorrow, per_key=10)) == 20


def test_the_share_of_a_busy_key_is_drawn_alike_from_searches_with_and_without_clicks() -> None:
    busy = [search([1] if n % 10 == 0 else [], key="shop") for n in range(3_000)]
    assert pairs(busy, per_key=MANY) == pairs(busy, per_key=100) == set()  # a tenth: too few
    often = [search([1] if n % 2 == 0 else [], key="shop") for n in range(3_000)]
    assert pairs(often, per_key=MANY) == pairs(often, per_key=100) == {("why", "p0")}
