"""Clicks as judgments: estimates against simulated users whose looking is known, and floods that do not count."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from app.clicks import DAY_S, to_judgments
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
    assert pairs([search(clicked) for clicked in seen], eta=0) == set()  # if all were looked at, both were left alone


def test_one_click_is_believed_where_nothing_speaks_against_it() -> None:
    assert pairs([search([1])]) == {("why", "p0")}
    assert pairs([search([9])]) == {("why", "p8")}
    assert to_judgments([], eta=1, per_key=MANY) == []


def test_what_is_seldom_clicked_when_it_is_shown_is_not_relevant() -> None:
    """The deeper it stood the less it says that it was passed over."""
    assert pairs([search([1]), *[search([]) for _ in range(4)]]) == set()
    assert pairs([search([6]), *[search([]) for _ in range(4)]]) == {("why", "p5")}
    assert pairs([search([6]), *[search([]) for _ in range(200)]]) == set()


def test_chance_clicks_are_no_answers_however_many_searches_there_are() -> None:
    """Half of 600 questions have their answer first, a quarter third, the rest nowhere; users click on 9 of 10 answers
    that they look at, and on 1 of 20 others. The mean of clicks by propensity called 4 of 10 pairs wrong here."""
    rng = np.random.default_rng(3)
    answers = [(0, 0, 2, None)[number % 4] for number in range(600)]
    seen = []
    for number in rng.integers(600, size=4_000).tolist():
        drawn = rng.random((2, 10))
        clicked = [
            k for k in range(10) if drawn[0, k] < 1 / (k + 1) and drawn[1, k] < (0.9 if answers[number] == k else 0.05)
        ]
        seen.append(search([k + 1 for k in clicked], query=f"q{number}"))
    found = pairs(seen)
    right = {(f"q{number}", f"p{answer}") for number, answer in enumerate(answers) if answer is not None}
    assert len(found & right) >= 0.9 * len(found)
    assert len(found & right) >= 0.8 * len(right)


def test_a_log_in_which_all_is_alike_does_not_forget_what_it_said() -> None:
    """One hit to an answer, clicked in 7 of 10 searches: there is no other pair to tell chance clicks by."""
    rng = np.random.default_rng(5)
    seen = [
        replace(search([1] if rng.random() < 0.7 else [], query=f"q{number // 3}"), shown=PASSAGES[:1])
        for number in range(900)
    ]
    clicks = Counter(each.query for each in seen if each.clicks)
    assert {query for query, _ in pairs(seen)} >= {query for query, clicked in clicks.items() if clicked == 3}


def test_one_query_that_is_asked_all_day_says_little_of_the_others() -> None:
    rng = np.random.default_rng(3)
    honest = []
    for number in rng.integers(300, size=1_200).tolist():
        answer, drawn = (0, 0, 2, None)[number % 4], rng.random((2, 10))
        clicked = [k for k in range(10) if drawn[0, k] < 1 / (k + 1) and drawn[1, k] < (0.9 if answer == k else 0.05)]
        honest.append(search([k + 1 for k in clicked], query=f"q{number}"))
    asked_all_day = [search([2], query="ping"), *[search([], query="ping") for _ in range(5_000)]]
    alone, beside = pairs(honest), pairs(honest + asked_all_day)
    assert len(alone ^ beside) <= 0.02 * len(alone)


def test_a_page_further_on_counts_from_where_it_began() -> None:
    """Passed over at ranks 1 to 5 speaks against p4; at 101 to 105 it says nothing."""
    near, far = ([replace(search([]), offset=offset) for _ in range(40)] for offset in (0, 100))
    assert pairs([search([5]), *near]) == set()
    assert pairs([search([5]), *far]) == {("why", "p4")}


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
