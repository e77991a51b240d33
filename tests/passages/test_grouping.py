"""Groups of a ranking: which values make one, in which order, how many."""

from typing import Any

import pytest

from app.errors import InvalidField
from app.passages import Hit, Passage
from app.passages.grouping import group, to_path


def ranking(*metadata: dict[str, Any]) -> list[Hit]:
    passages = [Passage(id=f"p{n}", text="x", metadata=each) for n, each in enumerate(metadata)]
    return [Hit.of(passage, 1 / (1 + n)) for n, passage in enumerate(passages)]


def told(hits: list[Hit], field: str, limit: int = 10, size: int = 10) -> list[tuple[str | int, list[str]]]:
    return [(value, [hit.id for hit in found]) for value, found in group(hits, to_path(field), limit, size)]


def test_groups_come_in_the_order_of_their_best_hits_and_hold_no_more_than_asked() -> None:
    hits = ranking(*({"doc": doc} for doc in "abacabdb"))
    assert told(hits, "doc") == [("a", ["p0", "p2", "p4"]), ("b", ["p1", "p5", "p7"]), ("c", ["p3"]), ("d", ["p6"])]
    assert told(hits, "doc", limit=2, size=2) == [("a", ["p0", "p2"]), ("b", ["p1", "p5"])]
    assert group(hits, ("doc",), 1, 1)[0].hits == [hits[0]]


def test_a_list_is_in_the_group_of_each_value_and_once_in_it() -> None:
    hits = ranking({"tags": ["x", "y", "x"]}, {"tags": "y"}, {"tags": []})
    assert told(hits, "tags") == [("x", ["p0"]), ("y", ["p0", "p1"])]


def test_what_is_no_text_and_no_whole_number_is_in_no_group() -> None:
    odd: list[Any] = [None, True, 1.5, {"deep": 1}, [None, [7]]]
    hits = ranking({}, *({"doc": value} for value in odd), {"doc": 7}, {"doc": "7"}, {"doc": ""})
    assert told(hits, "doc") == [(7, ["p6"]), ("7", ["p7"]), ("", ["p8"])]


def test_a_field_lies_as_deep_as_its_path_says() -> None:
    hits = ranking({"source": {"url": "u", "a.b c": 1}}, {"source": "url"}, {"source": [{"url": "u"}]})
    assert told(hits, "source.url") == [("u", ["p0"])]
    assert told(hits, 'source."a.b c"') == [(1, ["p0"])]
    assert told(hits, "source") == [("url", ["p1"])]


@pytest.mark.parametrize("field", ["", ".", "a.", ".a", "a..b", "a b", "tags[]", '"', 'a"b"', '""'])
def test_what_is_no_path_is_refused(field: str) -> None:
    with pytest.raises(InvalidField, match=r"group_by.*is no field of the metadata"):
        to_path(field)
