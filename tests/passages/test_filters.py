"""Every kind of condition, against both adapters, with the passages it must find written out."""

from collections.abc import Iterator
from typing import Any

import pytest
from qdrant_client import QdrantClient

from app.errors import InvalidField, UnsupportedFilter
from app.passages import Passage, PassageStore, Point, parse_filter
from app.passages.edge import EdgeStore
from app.passages.qdrant import QdrantStore
from tests.passages.conftest import SPACE, OpenEdge, unit_vectors

BERLIN = {"lat": 52.52, "lon": 13.4}
PARIS = {"lat": 48.86, "lon": 2.35}
HANOI = {"lat": 21.03, "lon": 105.85}

METADATA: dict[str, dict[str, Any]] = {
    "de": {
        "lang": "de",
        "n": 1,
        "tags": ["a", "b"],
        "at": "2024-01-05T10:00:00Z",
        "place": BERLIN,
        "ok": True,
    },
    "fr": {"lang": "fr", "n": 2, "tags": ["b"], "at": "2024-03-01T00:00:00Z", "place": PARIS, "ok": False},
    "vi": {"lang": "vi", "n": 3.5, "tags": [], "at": "2025-01-01T00:00:00+07:00", "place": HANOI},
    "en": {
        "lang": "en",
        "n": -4,
        "note": None,
        "words": "the red fox",
        "odd key": 1,
        "a": {"b.c": "deep", "b.d": True},
    },
    "xx": {"parts": [{"kind": "x", "size": 1}, {"kind": "y", "size": 2}], "flags": [True, False]},
    "yy": {"parts": [{"kind": "x", "size": 2, "open": False}], "tags": ["a", "b", "c"], "words": "a fox so red"},
    "": {},
}
ALL = set(METADATA)


def box(west: float, north: float, east: float, south: float) -> dict[str, Any]:
    return {"top_left": {"lon": west, "lat": north}, "bottom_right": {"lon": east, "lat": south}}


def ring(*corners: tuple[float, float]) -> dict[str, Any]:
    return {"points": [{"lon": lon, "lat": lat} for lon, lat in (*corners, corners[0])]}


def must(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"must": list(conditions)}


def key(name: str, **test: Any) -> dict[str, Any]:
    return {"key": name, **test}


EUROPE = ring((-10, 36), (30, 36), (30, 60), (-10, 60))
AROUND_PARIS = ring((1, 48), (4, 48), (4, 50), (1, 50))

CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, ALL),
    "match value": (must(key("lang", match={"value": "de"})), {"de"}),
    "match integer": (must(key("n", match={"value": 2})), {"fr"}),
    "match boolean": (must(key("ok", match={"value": False})), {"fr"}),
    "match one of a list": (must(key("tags", match={"value": "a"})), {"de", "yy"}),
    "match any": (must(key("lang", match={"any": ["de", "vi", "zz"]})), {"de", "vi"}),
    "match any integer": (must(key("n", match={"any": [1, -4]})), {"de", "en"}),
    "match except": (must(key("lang", match={"except": ["de", "fr"]})), {"vi", "en"}),
    "match boolean in a list": (must(key("flags", match={"value": True})), {"xx"}),
    "match boolean in objects": (must(key("parts[].open", match={"value": False})), {"yy"}),
    "match boolean under a quoted key": (must(key('a."b.d"', match={"value": True})), {"en"}),
    "match text": (must(key("words", match={"text": "red fox"})), {"en", "yy"}),
    "match any text": (must(key("words", match={"text_any": "wolf fox"})), {"en", "yy"}),
    "match phrase": (must(key("words", match={"phrase": "red fox"})), {"en"}),
    "match prefix": (must(key("words", match={"prefix": "the r"})), {"en"}),
    "match substring": (must(key("words", match={"substring": "fox so"})), {"yy"}),
    "range": (must(key("n", range={"gte": 1, "lt": 3.5})), {"de", "fr"}),
    "range open": (must(key("n", range={"gt": 2})), {"vi"}),
    "range of dates": (
        must(key("at", range={"gte": "2024-01-05T11:00:00+01:00", "lt": "2024-12-31"})),
        {"de", "fr"},
    ),
    "range across zones": (must(key("at", range={"gt": "2024-12-31T16:59:59Z"})), {"vi"}),
    "geo box": (must(key("place", geo_bounding_box=box(-5, 55, 20, 45))), {"de", "fr"}),
    "geo radius": (must(key("place", geo_radius={"center": PARIS, "radius": 900_000.0})), {"de", "fr"}),
    "geo radius small": (must(key("place", geo_radius={"center": PARIS, "radius": 10_000.0})), {"fr"}),
    "geo polygon": (must(key("place", geo_polygon={"exterior": EUROPE})), {"de", "fr"}),
    "geo polygon with a hole": (
        must(key("place", geo_polygon={"exterior": EUROPE, "interiors": [AROUND_PARIS]})),
        {"de"},
    ),
    "values count": (must(key("tags", values_count={"gte": 2})), {"de", "yy"}),
    "values count between": (must(key("tags", values_count={"gt": 0, "lte": 2})), {"de", "fr"}),
    "is empty": (must({"is_empty": {"key": "tags"}}), {"vi", "en", "xx", ""}),
    "is null": (must({"is_null": {"key": "note"}}), {"en"}),
    "has id": (must({"has_id": ["de", "yy", "gone"]}), {"de", "yy"}),
    "array element": (must(key("parts[].size", match={"value": 2})), {"xx", "yy"}),
    "nested": (
        must(
            {
                "nested": {
                    "key": "parts",
                    "filter": must(key("kind", match={"value": "x"}), key("size", match={"value": 2})),
                }
            }
        ),
        {"yy"},
    ),
    "nested elements may differ without nested": (
        must(key("parts[].kind", match={"value": "x"}), key("parts[].size", match={"value": 2})),
        {"xx", "yy"},
    ),
    "one condition without a list": ({"must": key("lang", match={"value": "fr"})}, {"fr"}),
    "should": ({"should": [key("lang", match={"value": "fr"}), key("n", match={"value": 1})]}, {"de", "fr"}),
    "must not": (
        {"must_not": [{"is_empty": {"key": "lang"}}, key("lang", match={"value": "en"})]},
        {"de", "fr", "vi"},
    ),
    "min should": (
        {
            "min_should": {
                "conditions": [
                    key("tags", match={"value": "a"}),
                    key("tags", match={"value": "b"}),
                    key("lang", match={"value": "fr"}),
                ],
                "min_count": 2,
            }
        },
        {"de", "fr", "yy"},
    ),
    "filter in a filter": (
        must(
            {"should": [key("lang", match={"value": "de"}), key("lang", match={"value": "vi"})]},
            {"must_not": [key("n", range={"gt": 3})]},
        ),
        {"de"},
    ),
    "quoted key": (must(key('a."b.c"', match={"value": "deep"})), {"en"}),
}


@pytest.fixture(scope="module", params=["edge", "qdrant"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PassageStore]:
    """The passages of METADATA; the tests only read them."""
    store: PassageStore
    if request.param == "edge":
        store = EdgeStore(tmp_path_factory.mktemp("edge"), SPACE, indexed_fields=["lang"])
    else:
        store = QdrantStore(QdrantClient(":memory:"), "passages", SPACE)
    passages = [Passage(id=id, text=id, metadata=metadata) for id, metadata in METADATA.items()]
    vectors = unit_vectors(len(passages))
    store.upsert([Point(passage=p, content_hash="", vector=v) for p, v in zip(passages, vectors, strict=True)])
    yield store
    store.close()


@pytest.mark.parametrize("name", CASES)
def test_a_condition_finds_the_same_passages_everywhere(filled: PassageStore, name: str) -> None:
    wanted, expected = CASES[name]
    parsed = parse_filter(wanted)
    assert {hit.id for hit in filled.search(unit_vectors(1)[0], limit=20, filter=parsed)} == expected
    assert filled.count(parsed) == len(expected)
    assert {one.passage.id for one in filled.page(None, 20, parsed)[0]} == expected


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ({"nested": {"key": "parts", "filter": must(key("open", match={"value": True}))}}, "inside nested"),
        (key("flags[0]", match={"value": True}), "by list index"),
    ],
)
def test_edge_names_the_booleans_it_cannot_match(open_edge: OpenEdge, test: dict[str, Any], why: str) -> None:
    with pytest.raises(UnsupportedFilter, match=why):
        open_edge().count(parse_filter(must(test)))


def test_booleans_follow_a_change_of_metadata(store: PassageStore) -> None:
    [vector] = unit_vectors(1)
    store.upsert([Point(passage=Passage(id="p", text="t", metadata={"ok": True}), content_hash="", vector=vector)])
    store.set_metadata([(Passage(id="p", text="t", metadata={"ok": False}), "")])
    assert store.count(parse_filter(must(key("ok", match={"value": True})))) == 0
    assert store.count(parse_filter(must(key("ok", match={"value": False})))) == 1


def test_no_filter_is_none() -> None:
    assert parse_filter(None) is None


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"mustt": []}, "filter: 'mustt'"),
        (must({"slice": {"total": 2, "index": 0}}), r"filter\.must\[0\]: 'slice'"),
        (must({"has_vector": "dense"}), r"filter\.must\[0\]: 'has_vector'"),
        (must(key("lang", match={"vaule": "de"})), r"filter\.must\[0\]\.match: 'vaule'"),
        (must(key("lang", matches={"value": "de"})), r"filter\.must\[0\]: 'matches'"),
        (must(key("n", range={"above": 1})), r"filter\.must\[0\]\.range: 'above'"),
        (
            must({"nested": {"key": "parts", "filter": must({"has_id": ["a"]})}}),
            "'has_id' cannot be served inside nested",
        ),
    ],
)
def test_a_condition_nobody_serves_is_named(wanted: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedFilter, match=named):
        parse_filter(wanted)


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ([], "filter: must be an object"),
        ({"must": "lang"}, r"filter\.must: must be a list"),
        (must({}, "x"), r"filter\.must\[1\]: must be an object"),  # type: ignore[arg-type]
        (must(key("lang")), r"filter\.must\[0\]: has a key but nothing"),
        (must(key("a b", is_null=True)), r"must\[0\]\.key: 'a b' is no path"),
        (must(key("a[", is_null=True)), r"must\[0\]\.key: 'a\[' is no path"),
        (must(key("", is_null=True)), "is no path"),
        (must(key("n", match={"value": 1.5})), r"match\.value: must be"),
        (must(key("n", match={"any": ["a", 1]})), r"match\.any: must be"),
        (must(key("n", match={"value": 1, "any": [1]})), "exactly one of"),
        (must(key("n", range={"gt": 1, "lt": "2024-01-01"})), "all numbers or all dates"),
        (must(key("n", range={"gt": float("nan")})), "all numbers or all dates"),
        (must(key("n", range={"gt": "yesterday"})), r"range\.gt: must be"),
        (must(key("n", range={})), "all numbers or all dates"),
        (must(key("n", is_empty="yes")), "true or false"),
        (must({"has_id": [1]}), r"has_id: must be a list of passage ids"),
        ({"min_should": {"conditions": [], "min_count": -1}}, "min_count"),
        (must(key("g", geo_radius={"center": {"lat": 1}, "radius": 1})), r"geo_radius"),
    ],
)
def test_a_bad_value_is_named_with_its_place(wanted: Any, named: str) -> None:
    with pytest.raises(InvalidField, match=named):
        parse_filter(wanted)


def test_a_filter_nested_without_end_is_refused() -> None:
    wanted: dict[str, Any] = {"must": []}
    for _ in range(5_000):
        wanted = {"must": [wanted]}
    with pytest.raises(InvalidField, match="deeper than"):
        parse_filter(wanted)


def test_a_filter_of_too_many_conditions_is_refused() -> None:
    with pytest.raises(InvalidField, match="more than"):
        parse_filter({"should": [key("n", match={"value": i}) for i in range(5_000)]})


def test_a_place_off_the_globe_is_refused_by_edge(open_edge: OpenEdge) -> None:
    wanted = parse_filter(must(key("place", geo_radius={"center": {"lat": 500, "lon": 0}, "radius": 1})))
    with pytest.raises(InvalidField, match="500"):
        open_edge().count(wanted)
