"""Searches by words, and by words and vectors; each test of a store runs against both adapters."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from app.errors import NoLexicalSide
from app.passages import Passage, PassageStore, Point, lexical, parse_filter
from app.passages.copying import copy_passages
from app.passages.edge import EdgeStore
from app.passages.fusion import DEPTH, RRF_K, cut, fuse
from app.passages.lexical import language_of, passage_terms, query_terms
from app.passages.qdrant import QdrantStore
from app.passages.qdrant_calls import COLLECTION_ID, INDEX_SPACE
from tests.passages.conftest import DIM, SPACE, OpenEdge, unit_vectors

TEXTS = {
    "en-1": "Bees are swarming around the queen",
    "en-2": "The keeper calms a hive with smoke",
    "en-3": "Honey is taken off late in summer",
    "de-1": "Die Bienen schwärmen um die Königin",
    "vi-1": "Ong thợ canh cửa tổ",
    "zh-1": "蜜蜂在炎热的傍晚聚集在蜂箱前面",
    "none-1": "Bees and the smoke",
}


def point(id: str, text: str, vector: np.ndarray, lang: str | None = None) -> Point:
    metadata = {} if lang in (None, "none") else {"lang": lang}
    return Point(passage=Passage(id=id, text=text, metadata=metadata), content_hash=text, vector=vector)


def beekeeping() -> list[Point]:
    vectors = unit_vectors(len(TEXTS))
    return [
        point(id, text, vector, id.partition("-")[0]) for (id, text), vector in zip(TEXTS.items(), vectors, strict=True)
    ]


def found(store: PassageStore, text: str, **options: object) -> list[str]:
    [hits] = store.search_lexical([text], limit=10, **options)  # type: ignore[arg-type]
    return [hit.id for hit in hits]


@pytest.mark.parametrize(
    ("lang", "language"),
    [
        ("de", "german"),
        ("de-AT", "german"),
        ("PT_br", "portuguese"),
        ("nb", "norwegian"),
        ("vi", ""),
        (7, ""),
        ("", ""),
    ],
)
def test_the_rules_are_those_of_the_metadata(lang: object, language: str) -> None:
    assert language_of({"lang": lang}) == language
    assert language_of({}) == ""


def test_every_passage_is_read_by_the_rules_of_its_language(store: PassageStore) -> None:
    store.upsert(beekeeping())
    assert found(store, "swarm") == ["en-1"]
    assert found(store, "Biene") == ["de-1"]
    assert found(store, "the") == ["none-1"]  # a stopword of English, and not where nothing is known
    assert found(store, "bee") == ["en-1"]  # stemmed there, and not in none-1
    assert set(found(store, "bees")) == {"en-1", "none-1"}
    assert found(store, "tho canh") == ["vi-1"]  # without rules accents are folded
    assert found(store, "蜂箱") == ["zh-1"]
    assert found(store, "?!") == []


def test_one_languages_stem_is_not_anothers_word() -> None:
    english = passage_terms(Passage(id="", text="wand", metadata={"lang": "en"}))
    german = passage_terms(Passage(id="", text="Wand", metadata={"lang": "de"}))
    asked = set(query_terms("wand").indices)
    assert not set(english.indices) & set(german.indices)
    assert set(english.indices) | set(german.indices) < asked


def test_words_that_say_nothing_in_the_querys_language_find_nothing_in_another(store: PassageStore) -> None:
    titles = point("de-2", "Der Film What Are the Odds lief hier, The Who sangen", unit_vectors(1)[0], "de")
    store.upsert([*beekeeping(), titles])
    assert found(store, "what are the keepers") == ["en-2"]
    assert found(store, "was machen die Bienen um die Königin") == ["de-1"]
    assert found(store, "the who") == ["de-2", "none-1"]  # nothing but such words: they are what is asked for
    assert found(store, "Ong thợ canh cửa") == ["vi-1"]
    assert set(found(store, "what smoke")) == {"de-2", "en-2", "none-1"}  # one such word may be another language's


@pytest.mark.parametrize("query", ["hepatitis c", "vitamin e", "die hard", "los angeles weather", "van gogh"])
def test_a_word_of_the_query_is_not_taken_for_another_languages_stopword(query: str) -> None:
    passage = Passage(id="", text=query, metadata={"lang": "en"})
    assert {*passage_terms(passage).indices} <= {*query_terms(query).indices}


def test_highlights_are_where_the_words_are_by_the_rules_of_the_passage() -> None:
    texts = {
        "en": "Swarming: the hive\u2019s bees SWARM_early \U0001f41d and swarms.",
        "de": "Die Bienen des Stocks. Der Bienenstock.",
        "vi": "Ong thợ canh cửa tổ",
        "zh": "蜜蜂在炎热的傍晚",
        "": "the swarm of a bee",
    }
    passages = [Passage(id=lang, text=text, metadata={"lang": lang}) for lang, text in texts.items()]
    spans = lexical.highlights("the bees swarm, Biene; THO 蜜蜂", passages)
    marked = [[one.text[start:end] for start, end in each] for one, each in zip(passages, spans, strict=True)]
    assert marked == [["Swarming", "bees", "SWARM", "swarms"], ["Bienen"], ["thợ"], [], ["the", "swarm"]]


def test_rare_words_count_more_and_the_title_counts(store: PassageStore) -> None:
    store.upsert(beekeeping())
    titled = Passage(id="en-4", title="Propolis", text="A resin of trees", metadata={"lang": "en"})
    store.upsert([Point(passage=titled, content_hash="", vector=unit_vectors(1)[0])])
    assert found(store, "propolis") == ["en-4"]
    many = [point(f"more-{i}", "smoke", vector, "en") for i, vector in enumerate(unit_vectors(20, seed=3))]
    store.upsert(many)
    english = parse_filter({"must": [{"key": "lang", "match": {"value": "en"}}]})
    assert found(store, "smoke swarms", filter=english)[0] == "en-1"


def test_filter_offset_and_threshold_hold_for_words_too(store: PassageStore) -> None:
    store.upsert(beekeeping())
    everything = found(store, "bees smoke queen Königin")
    german = parse_filter({"must": [{"key": "lang", "match": {"value": "de"}}]})
    assert found(store, "bees smoke queen Königin", filter=german) == ["de-1"]
    assert found(store, "bees smoke queen Königin", offset=1) == everything[1:]
    [[best, *others]] = store.search_lexical(["hives with smoke"], limit=3)
    assert best.id == "en-2"
    assert others
    assert found(store, "hives with smoke", score_threshold=best.score - 1e-3) == ["en-2"]


def test_fused_scores_are_the_sums_of_reciprocal_ranks(store: PassageStore) -> None:
    """By vector a, b, c, d; by words c, a. So a: 1/11 + 1/12, c: 1/13 + 1/11, b: 1/12, d: 1/14."""
    axes = np.eye(DIM, dtype=np.float32)
    asked = np.array([0.8, 0.5, 0.3, 0.1, 0, 0, 0, 0], dtype=np.float32)
    store.upsert(
        [
            point("a", "a hive in winter under snow", axes[0], "en"),
            point("b", "nothing of it", axes[1], "en"),
            point("c", "winter hive", axes[2], "en"),
            point("d", "nor of that", axes[3], "en"),
        ]
    )
    assert [hit.id for hit in store.search(asked, limit=4)] == ["a", "b", "c", "d"]
    assert found(store, "hives in winter") == ["c", "a"]
    [hits] = store.search_hybrid([asked], ["hives in winter"], limit=4)
    assert RRF_K == 10
    assert [hit.id for hit in hits] == ["a", "c", "b", "d"]
    assert [hit.score for hit in hits] == pytest.approx([1 / 11 + 1 / 12, 1 / 13 + 1 / 11, 1 / 12, 1 / 14])
    [second] = store.search_hybrid([asked], ["hives in winter"], limit=2, offset=1)
    assert [hit.id for hit in second] == ["c", "b"]
    [over] = store.search_hybrid([asked], ["hives in winter"], limit=4, score_threshold=1 / 13 + 1 / 11)
    assert [hit.id for hit in over] == ["a", "c"]
    nothing = parse_filter({"must": [{"key": "lang", "match": {"value": "de"}}]})
    assert store.search_hybrid([asked], ["hives in winter"], limit=4, filter=nothing) == [[]]


def test_equal_sums_stay_in_the_order_of_the_vectors_and_pages_end_with_the_ranking() -> None:
    near, words = [("a", 0.9), ("b", 0.8), ("c", 0.7)], [("d", 9.0), ("b", 8.0), ("a", 7.0)]
    fused = fuse(near, words)
    assert [point for point, _ in fused] == ["a", "b", "d", "c"]
    assert dict(fused) == {"b": 1 / 12 + 1 / 12, "a": 1 / 11 + 1 / 13, "d": 1 / 11, "c": 1 / 13}
    assert fuse([("a", 1.0)], [("b", 1.0)]) == [("a", 1 / 11), ("b", 1 / 11)]
    many = [(str(n), 1.0) for n in range(2 * DEPTH)]
    assert cut(many, 10, DEPTH - 4, None) == many[DEPTH - 4 : DEPTH]
    assert cut(fused, 10, 1, 1 / 11) == fused[1:3]


def test_pages_of_equal_scores_repeat_and_lose_nothing(store: PassageStore) -> None:
    """What one side alone has at some rank scores what the other side has there."""
    vectors = unit_vectors(120)
    texts = ["honey and wax" if n % 3 else "smoke" for n in range(120)]
    store.upsert([point(f"p{n}", text, vectors[n], "en") for n, text in enumerate(texts)])
    [asked] = unit_vectors(1, seed=5)
    whole = [hit.id for hit in store.search_hybrid([asked], ["honey"], limit=120)[0]]
    assert len(whole) == 120
    pages = [store.search_hybrid([asked], ["honey"], limit=7, offset=offset)[0] for offset in range(0, 120, 7)]
    assert [hit.id for page in pages for hit in page] == whole
    whole = found(store, "honey")
    paged = [hit.id for offset in range(10) for hit in store.search_lexical(["honey"], limit=1, offset=offset)[0]]
    assert paged == whole


def test_another_language_in_the_metadata_changes_the_words_and_not_the_vector(store: PassageStore) -> None:
    store.upsert(beekeeping())
    moved = Passage(id="none-1", text=TEXTS["none-1"], metadata={"lang": "en"})
    assert store.set_metadata([(moved, "h")]) == 1
    assert set(found(store, "bee")) == {"en-1", "none-1"}
    assert found(store, "the") == []
    [stored] = store.fetch(["none-1"], with_vectors=True)
    assert stored.vector is not None
    np.testing.assert_array_equal(stored.vector, beekeeping()[-1].vector)


def test_a_changed_text_and_a_deletion_change_the_words(store: PassageStore) -> None:
    store.upsert(beekeeping())
    store.upsert([point("en-1", "Wax moths", unit_vectors(1)[0], "en")])
    store.delete(["en-2"])
    assert found(store, "swarm") == []
    assert found(store, "moth") == ["en-1"]
    assert found(store, "hive") == []


Old = Callable[[], PassageStore]


@pytest.fixture(params=["edge", "qdrant"])
def old(request: pytest.FixtureRequest, open_edge: OpenEdge, tmp_path: Path) -> Iterator[Old]:
    """Opens, each time again, a store that was made before there were words."""
    if request.param == "edge":
        root = tmp_path / "passages"
        root.mkdir()
        vectors = {"dense": edge.EdgeVectorParams(DIM, edge.Distance.Dot)}
        edge.EdgeShard.create(str(root / "shard-000001"), edge.EdgeConfig(vectors=vectors)).close()
        record = {"format": 1, "shard": "shard-000001", "index_space": SPACE.to_dict()}
        (root / "CURRENT").write_bytes(orjson.dumps(record))
        yield open_edge
        return
    client = QdrantClient(":memory:")
    client.create_collection(
        "passages",
        vectors_config={"dense": models.VectorParams(size=DIM, distance=models.Distance.DOT)},
        metadata={INDEX_SPACE: SPACE.to_dict(), COLLECTION_ID: "one"},
    )
    yield lambda: QdrantStore(client, "passages", SPACE)
    client.close()


def test_a_collection_from_before_words_answers_as_ever_and_says_how_to_get_them(old: Old) -> None:
    store = old()
    store.upsert(beekeeping())
    assert not store.lexical
    [vector] = unit_vectors(1)
    assert [hit.id for hit in store.search(vector, limit=1)] == ["en-1"]
    assert store.set_metadata([(Passage(id="vi-1", text=TEXTS["vi-1"], metadata={"lang": "de"}), "h")]) == 1
    for searching in (
        lambda: store.search_lexical(["bees"], limit=1),
        lambda: store.search_hybrid([vector], ["bees"], limit=1),
    ):
        with pytest.raises(NoLexicalSide, match="adiabat store add-lexical"):
            searching()


def test_words_are_added_from_the_stored_texts_and_vectors_stay(old: Old) -> None:
    store = old()
    store.upsert(beekeeping())
    heard: list[int] = []
    assert store.add_lexical(heard.append) == len(TEXTS)
    assert heard[-1] == len(TEXTS)
    assert store.lexical
    assert found(store, "swarm") == ["en-1"]
    if isinstance(store, EdgeStore):
        store.close()
    again = old()
    assert again.lexical
    assert found(again, "Biene") == ["de-1"]
    again.upsert([point("en-9", "swarms", unit_vectors(1)[0], "en")])
    assert set(found(again, "swarm")) == {"en-1", "en-9"}
    for stored, given in zip(again.fetch(list(TEXTS), with_vectors=True), beekeeping(), strict=True):
        assert stored.vector is not None
        assert (stored.passage, stored.content_hash) == (given.passage, given.content_hash)
        np.testing.assert_array_equal(stored.vector, given.vector)


def test_an_addition_that_broke_is_not_taken_for_whole_and_may_be_repeated(old: Old) -> None:
    store = old()
    store.upsert(beekeeping())

    def broken(_added: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add_lexical(broken)
    with pytest.raises(NoLexicalSide):
        store.search_lexical(["bees"], limit=1)
    # What is written in between has no words yet.
    store.upsert([point("en-1", "Wax moths", unit_vectors(1)[0], "en")])
    store.set_metadata([(Passage(id="none-1", text=TEXTS["none-1"], metadata={"lang": "en"}), "h")])
    assert store.add_lexical(lambda _added: None) == len(TEXTS)
    assert found(store, "swarm") == []
    assert found(store, "moth") == ["en-1"]
    assert found(store, "bee") == ["none-1"]


def test_words_come_along_when_passages_are_copied(open_edge: OpenEdge) -> None:
    source = open_edge()
    source.upsert(beekeeping())
    target = QdrantStore(QdrantClient(":memory:"), "passages", SPACE)
    copy_passages(source, target, lambda _copied: None)
    for text in ("swarm", "smoke", "Königin", "蜂箱"):
        assert set(found(target, text)) == set(found(source, text)) != set()
    target.close()


def test_words_survive_a_rebuild_with_writes_beside_it_and_a_snapshot(open_edge: OpenEdge, tmp_path: Path) -> None:
    store = open_edge(index_after=500)
    vectors = unit_vectors(1_500)
    store.upsert([point(f"p{i}", f"word{i} bees", vectors[i], "en") for i in range(1_500)])
    store.upsert([point(f"late{i}", f"late{i} bees", vectors[i], "en") for i in range(50)])
    assert store.wait_indexed(60)
    assert store.info().indexed >= 1_000
    assert store.info().indexed <= store.count() == 1_550
    assert found(store, "word7") == ["p7"]
    assert found(store, "late49") == ["late49"]
    store.snapshot(tmp_path / "copy", lambda: None)
    store.close()
    again = open_edge()
    assert found(again, "word1499") == ["p1499"]
    again.close()
    assert orjson.loads((tmp_path / "copy" / "CURRENT").read_bytes())["lexical"] == 1
