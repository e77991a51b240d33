"""What every adapter must do; each test runs against both."""

import dataclasses
import uuid
from pathlib import Path

import numpy as np
import orjson
import pytest
from qdrant_client import QdrantClient

from app.errors import IndexSpaceMismatch, InvalidField, Unavailable
from app.passages import IndexSpace, Passage, PassageStore, Point, open_store, parse_filter
from app.passages.payload import EF_CONSTRUCT, payload_hash
from app.passages.qdrant import QdrantStore
from app.passages.qdrant_calls import connect
from app.settings import Settings
from tests.passages.conftest import DIM, SPACE, OpenEdge, points, unit_vectors


def ids(store: PassageStore) -> set[str]:
    return {one.passage.id for one in store.page(None, 1_000)[0]}


def test_a_passage_comes_back_as_it_was_given(store: PassageStore) -> None:
    metadata = {
        "lang": "vi",
        "tags": ["a", "b"],
        "deep": {"n": 1.5, "none": None, "yes": True},
        "big": 2**53 + 1,
    }
    passage = Passage(id="../ü 1", text="Dòng chữ\n", title="", metadata=metadata)
    [vector] = unit_vectors(1)
    store.upsert([Point(passage=passage, content_hash="h", vector=vector)])
    [found] = store.fetch(["../ü 1"], with_vectors=True)
    assert found.passage == passage
    assert found.content_hash == "h"
    assert found.vector is not None
    np.testing.assert_array_equal(found.vector, vector)


def test_fetch_keeps_the_order_asked_for_and_leaves_out_what_is_not_there(store: PassageStore) -> None:
    store.upsert(points(5))
    found = store.fetch(["p4", "gone", "p0", "p4"])
    assert [one.passage.id for one in found] == ["p4", "p0"]
    assert [one.vector for one in found] == [None, None]


def test_the_same_id_replaces_and_of_a_repeated_id_the_last_counts(store: PassageStore) -> None:
    store.upsert(points(3))
    [_, newer, _] = points(3, seed=1)
    older = dataclasses.replace(newer, content_hash="older")
    store.upsert([older, newer])
    [found] = store.fetch(["p1"], with_vectors=True)
    assert store.count() == 3
    assert found.content_hash == "1:1"
    np.testing.assert_array_equal(found.vector, newer.vector)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_vector_that_is_not_finite_is_refused_before_anything_is_written(store: PassageStore, bad: float) -> None:
    given = points(3)
    broken = given[2].vector.copy()
    broken[4] = bad
    given[2] = dataclasses.replace(given[2], vector=broken)
    with pytest.raises(InvalidField, match=r"'p2'.*not finite"):
        store.upsert(given)
    assert store.count() == 0
    with pytest.raises(InvalidField, match="not finite"):
        store.search(broken, limit=1)


def test_a_vector_of_another_dimension_is_refused(store: PassageStore) -> None:
    with pytest.raises(InvalidField, match=r"\(7,\).*\(8,\)"):
        store.upsert([dataclasses.replace(points(1)[0], vector=np.ones(7, np.float32))])
    with pytest.raises(InvalidField, match=r"\(9,\).*\(8,\)"):
        store.search(np.ones(9, np.float32), limit=1)


def test_delete_counts_what_was_there(store: PassageStore) -> None:
    store.upsert(points(5))
    assert store.delete(["p1", "p3", "p3", "gone"]) == 2
    assert ids(store) == {"p0", "p2", "p4"}
    assert store.delete(["p1"]) == 0


def test_delete_by_filter_deletes_what_matches_and_nothing_else(store: PassageStore) -> None:
    store.upsert(points(600))
    few = parse_filter({"must": [{"key": "n", "range": {"gte": 10}}]})
    assert few is not None
    assert store.delete_by_filter(few) == 590
    assert ids(store) == {f"p{i}" for i in range(10)}


def test_set_metadata_rewrites_the_payload_and_keeps_the_vector(store: PassageStore) -> None:
    store.upsert(points(3))
    moved = Passage(id="p1", text="text 1", title="title 1", metadata={"lang": "de"})
    assert store.set_metadata([(moved, "0:1"), (dataclasses.replace(moved, id="gone"), "x")]) == 1
    [found] = store.fetch(["p1"], with_vectors=True)
    assert found.passage == moved
    np.testing.assert_array_equal(found.vector, points(3)[1].vector)
    assert store.count() == 3


def test_content_hashes_tell_a_changed_payload_from_a_changed_text(store: PassageStore) -> None:
    given = points(2)
    store.upsert(given)
    before = store.content_hashes(["p0", "p1", "gone"])
    assert set(before) == {"p0", "p1"}
    assert before["p1"] == ("0:1", payload_hash(given[1].passage))
    moved = dataclasses.replace(given[1].passage, metadata={"n": 2})
    assert payload_hash(moved) != before["p1"].payload
    store.set_metadata([(moved, "0:1")])
    assert store.content_hashes(["p1"])["p1"] == ("0:1", payload_hash(moved))


def test_metadata_that_is_not_json_is_refused(store: PassageStore) -> None:
    passage = Passage(id="p", text="t", metadata={"when": object()})
    with pytest.raises(InvalidField, match=r"'p'.*not JSON"):
        store.upsert([Point(passage=passage, content_hash="", vector=unit_vectors(1)[0])])


def test_exact_search_equals_numpy(store: PassageStore) -> None:
    given = points(700)
    store.upsert(given)
    matrix = np.stack([one.vector for one in given])
    for query in unit_vectors(5, seed=9):
        hits = store.search(query, limit=10, exact=True, with_vectors=True)
        scores = matrix @ query
        assert [hit.id for hit in hits] == [f"p{i}" for i in np.argsort(-scores)[:10]]
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:10], atol=1e-6)
        for hit in hits:
            np.testing.assert_array_equal(hit.vector, matrix[int(hit.id[1:])])
            assert hit.passage == given[int(hit.id[1:])].passage


def test_offset_goes_on_where_limit_ended(store: PassageStore) -> None:
    store.upsert(points(50))
    [query] = unit_vectors(1, seed=9)
    whole = [hit.id for hit in store.search(query, limit=20, exact=True)]
    assert [hit.id for hit in store.search(query, limit=8, offset=5, exact=True)] == whole[5:13]


def test_score_threshold_cuts_the_hits(store: PassageStore) -> None:
    store.upsert(points(100))
    [query] = unit_vectors(1, seed=9)
    whole = store.search(query, limit=100, exact=True)
    threshold = (whole[6].score + whole[7].score) / 2
    hits = store.search(query, limit=100, score_threshold=threshold, exact=True)
    assert [hit.id for hit in hits] == [hit.id for hit in whole[:7]]


def test_a_batch_equals_single_searches(store: PassageStore) -> None:
    store.upsert(points(200))
    odd = parse_filter({"must": [{"key": "n", "match": {"any": list(range(1, 200, 2))}}]})
    queries = list(unit_vectors(40, seed=9))
    together = store.search_batch(queries, limit=7, offset=2, filter=odd, exact=True)
    alone = [store.search(query, limit=7, offset=2, filter=odd, exact=True) for query in queries]
    assert [[hit.id for hit in hits] for hits in together] == [[hit.id for hit in hits] for hits in alone]
    assert store.search_batch([], limit=5) == []


def test_paging_visits_every_passage_once(store: PassageStore) -> None:
    store.upsert(points(650))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        found, cursor = store.page(cursor, 300, with_vectors=True)
        seen += [one.passage.id for one in found]
        assert all(one.vector is not None and one.vector.shape == (DIM,) for one in found)
        if cursor is None:
            break
        assert len(found) == 300
    assert len(seen) == 650
    assert set(seen) == {f"p{i}" for i in range(650)}


def test_paging_keeps_to_the_filter(store: PassageStore) -> None:
    store.upsert(points(30))
    low = parse_filter({"must": [{"key": "n", "range": {"lt": 12}}]})
    first, cursor = store.page(None, 10, low)
    second, end = store.page(cursor, 10, low)
    assert {one.passage.id for one in first + second} == {f"p{i}" for i in range(12)}
    assert end is None
    assert store.count(low) == 12


def test_a_cursor_of_nobody_is_refused(store: PassageStore) -> None:
    with pytest.raises(InvalidField, match="cursor"):
        store.page("nonsense", 10)


def test_info_counts_passages_and_every_write_moves_the_counter(store: PassageStore) -> None:
    counts = [store.info().writes]
    store.upsert(points(3))
    counts.append(store.info().writes)
    store.set_metadata([(points(1)[0].passage, "x")])
    counts.append(store.info().writes)
    store.delete(["p1"], durable=True)
    counts.append(store.info().writes)
    assert counts == sorted(set(counts))
    assert store.info().passages == 2
    store.flush()


def test_an_export_holds_every_vector_once_and_groups_identical_texts(store: PassageStore, tmp_path: Path) -> None:
    given = points(1_200)
    twins = [
        dataclasses.replace(given[i], passage=dataclasses.replace(given[i].passage, title="", text="the same"))
        for i in (3, 4, 5)
    ]
    store.upsert(given)
    store.upsert(twins)
    folder = tmp_path / "deep" / "export"
    writes = store.info().writes
    store.export(folder)

    names = orjson.loads((folder / "ids.json").read_bytes())
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    groups = np.load(folder / "groups.npy")
    meta = orjson.loads((folder / "meta.json").read_bytes())
    assert sorted(names) == sorted(f"p{i}" for i in range(1_200))
    assert vectors.flags.c_contiguous
    np.testing.assert_array_equal(vectors, np.stack([given[int(name[1:])].vector for name in names]))
    assert groups.dtype == np.int32
    alike = [groups[names.index(f"p{i}")] for i in (3, 4, 5)]
    assert len(set(alike)) == 1
    assert len(set(groups.tolist())) == 1_198
    assert (meta["count"], meta["dim"], meta["writes"]) == (1_200, DIM, writes)
    assert IndexSpace.from_dict(meta["index_space"]) == SPACE
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


def test_a_complete_export_is_left_alone(store: PassageStore, tmp_path: Path) -> None:
    store.upsert(points(3))
    store.export(tmp_path / "export")
    before = (tmp_path / "export" / "meta.json").stat().st_mtime_ns
    store.upsert(points(4))
    store.export(tmp_path / "export")
    assert (tmp_path / "export" / "meta.json").stat().st_mtime_ns == before
    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidField, match="no export"):
        store.export(tmp_path / "other")


def test_an_empty_store_searches_pages_and_exports_nothing(store: PassageStore, tmp_path: Path) -> None:
    assert store.search(unit_vectors(1)[0], limit=3) == []
    assert store.page(None, 10) == ([], None)
    assert store.delete(["p"]) == 0
    store.export(tmp_path / "export")
    assert np.load(tmp_path / "export" / "vectors.npy").shape == (0, DIM)


def test_a_closed_store_says_so(store: PassageStore) -> None:
    store.close()
    with pytest.raises(Unavailable, match="closed"):
        store.count()


OTHER = dataclasses.replace(SPACE, passage_encoder_digest="sha256:two", passage_prompt="passage: ")
DIFFERENCES = r"passage encoder \(stored 'sha256:one', asked for 'sha256:two'\); passage prompt .*'passage: '"


def test_edge_refuses_another_index_space_naming_each_difference(open_edge: OpenEdge) -> None:
    first = open_edge()
    first.upsert(points(2))
    first.close()
    with pytest.raises(IndexSpaceMismatch, match=DIFFERENCES):
        open_edge(OTHER)
    assert open_edge().count() == 2


def test_qdrant_refuses_another_index_space_naming_each_difference() -> None:
    client = QdrantClient(":memory:")
    QdrantStore(client, "passages", SPACE).upsert(points(2))
    with pytest.raises(IndexSpaceMismatch, match=DIFFERENCES):
        QdrantStore(client, "passages", OTHER)
    again = QdrantStore(client, "passages", SPACE)
    assert again.count() == 2
    again.close()


def test_a_collection_on_a_server_is_made_with_our_index(qdrant: str) -> None:
    name = f"passages-{uuid.uuid4().hex}"
    client = connect(qdrant)
    QdrantStore(client, name, SPACE)
    made = client.get_collection(name).config.hnsw_config
    client.close()
    assert (made.m, made.ef_construct) == (16, EF_CONSTRUCT)


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    settings = Settings(qdrant_url="http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"server at http://127.0.0.1:1 does not answer"):
        open_store(settings, SPACE)


def test_open_store_makes_the_embedded_store_below_the_data_folder(tmp_path: Path) -> None:
    store = open_store(Settings(data_dir=tmp_path), SPACE)
    store.upsert(points(1))
    store.close()
    assert (tmp_path / "passages" / "CURRENT").is_file()
