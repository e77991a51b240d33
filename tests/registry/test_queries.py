"""The query log in the registry: what is kept, clicks that are checked, and what leaves by age and number."""

from dataclasses import replace
from typing import Any

import pytest

from app.errors import InvalidField, SearchNotFound
from app.registry import LoggedSearch, NewSearch, Registry

SHOWN = ["p1", "p2", "p3"]


def searched(search_id: str, **fields: Any) -> NewSearch:
    plain = NewSearch(
        search_id=search_id,
        key=None,
        query="why",
        lang=None,
        filter=None,
        encoder="base@1",
        generation=1,
        offset=0,
        shown=SHOWN,
    )
    return replace(plain, **fields)


def add(registry: Registry, number: int, age_s: float = 0.0, **fields: Any) -> LoggedSearch:
    search_id = f"{number:032x}"
    registry.queries.add([(searched(search_id, **fields), age_s)])
    return registry.queries.find(search_id)


def test_a_search_is_found_as_it_was_kept(registry: Registry) -> None:
    before = registry.database.now()
    filter = {"must": [{"key": "lang", "match": {"value": "de"}}]}
    kept = add(
        registry, 1, 60.0, key="shop", query="wieso leckt's", lang="de", filter=filter, generation=None, offset=10
    )
    routed = add(registry, 3, rule="route-language", route="medical")
    assert (routed.rule, routed.route, kept.route) == ("route-language", "medical", None)
    assert (kept.key, kept.query, kept.lang, kept.filter) == ("shop", "wieso leckt's", "de", filter)
    assert (kept.encoder, kept.generation, kept.offset, kept.shown, kept.clicks) == ("base@1", None, 10, SHOWN, ())
    assert before - 60 <= kept.at <= registry.database.now() - 60
    assert add(registry, 2).filter is None
    with pytest.raises(SearchNotFound, match="unknown, or it left the log"):
        registry.queries.find("f" * 32)


def test_a_click_on_what_was_shown_counts_once(registry: Registry) -> None:
    kept = add(registry, 1, offset=20)
    assert registry.queries.click(kept.search_id, [("p2", 22), ("p1", 21), ("p2", 22)]) == 2
    assert registry.queries.click(kept.search_id, [("p2", 22), ("p3", 23)]) == 1
    found = registry.queries.find(kept.search_id).clicks
    assert [(click.passage_id, click.position) for click in found] == [("p2", 22), ("p1", 21), ("p3", 23)]


def test_a_click_further_down_than_teams_are_kept_is_of_none(registry: Registry) -> None:
    kept = add(registry, 1, shown=[f"p{n}" for n in range(1, 151)], teams="ac" * 50)
    assert registry.queries.click(kept.search_id, [("p1", 1), ("p100", 100), ("p101", 101), ("p150", 150)]) == 4
    assert [click.team for click in registry.queries.find(kept.search_id).clicks] == ["a", "c", None, None]


@pytest.mark.parametrize(
    ("clicked", "said"),
    [
        ([("p1", 1), ("p9", 2)], r"clicks.1.passage_id: 'p9' is not among the 3 hits"),
        ([("p1", 1), ("p3", 2)], r"clicks.1.position: 'p3' was shown at 3, not at 2"),
        ([("p1", 2), ("p1", 1)], r"clicks.0.position: 'p1' was shown at 1, not at 2"),
    ],
)
def test_clicks_on_what_was_not_shown_there_are_refused_all_together(
    registry: Registry, clicked: list[tuple[str, int]], said: str
) -> None:
    kept = add(registry, 1)
    with pytest.raises(InvalidField, match=said):
        registry.queries.click(kept.search_id, clicked)
    assert registry.queries.find(kept.search_id).clicks == ()
    with pytest.raises(SearchNotFound):
        registry.queries.click("f" * 32, [("p1", 1)])


def test_pages_are_newest_first_by_key_and_time(registry: Registry) -> None:
    made = [add(registry, n, 100.0 - n, key="shop" if n % 2 else None) for n in range(6)]
    page = registry.queries.page(2)
    assert page == [made[5], made[4]]
    assert registry.queries.page(9, before=page[-1].sequence) == made[3::-1]
    assert registry.queries.page(9, key="shop") == made[5::-2]
    assert registry.queries.page(9, since=made[4].at) == made[:3:-1]
    assert registry.queries.count() == 6


def test_searches_by_vectors_are_asked_for_without_those_by_words(registry: Registry) -> None:
    for number, mode in enumerate((None, "dense", "hybrid", "lexical")):
        add(registry, number, mode=mode)
    assert [each.mode for each in registry.queries.page(2, by_vectors=True)] == ["dense", None]


def test_what_is_too_old_or_one_too_many_leaves_with_its_clicks(registry: Registry) -> None:
    made = [add(registry, n, 50.0 if n < 3 else 0.0) for n in range(8)]
    for each in (made[0], made[1], made[4], made[7]):
        registry.queries.click(each.search_id, [("p1", 1)])
    assert registry.queries.trim(max_age_s=100, max_rows=8) == 0
    assert registry.queries.trim(max_age_s=25, max_rows=8) == 2
    assert [each.search_id for each in registry.queries.page(9)] == [each.search_id for each in made[:2:-1]]
    assert registry.queries.trim(max_age_s=25, max_rows=3) == 1
    assert [each.search_id for each in registry.queries.page(9)] == [each.search_id for each in made[:4:-1]]
    assert registry.queries.clicked_revision().count == 1
    registry.queries.delete(made[7].search_id)
    assert registry.queries.clicked_revision().count == 0
    with pytest.raises(SearchNotFound):
        registry.queries.delete(made[7].search_id)


def test_only_queries_of_which_something_was_clicked_are_asked_for(registry: Registry) -> None:
    clicked = add(registry, 1, 30.0)
    again, _ = add(registry, 2, 20.0), add(registry, 3, 20.0, query="how")
    registry.queries.click(clicked.search_id, [("p2", 2)])
    registry.queries.add([(searched("f" * 32), -60.0)])  # after the newest click: with the next one
    found = registry.queries.searches_for_what_was_clicked()
    assert [each.search_id for each in found] == [clicked.search_id, again.search_id]
    assert [len(each.clicks) for each in found] == [1, 0]
