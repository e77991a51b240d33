"""What only the Edge adapter promises: crashes, rebuilds in the background, one process per folder."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from app.errors import DataDirLocked, Unavailable
from app.passages import Passage, edge_flush, edge_open, edge_shard, parse_filter
from app.passages.edge import EdgeStore
from app.passages.edge_flush import Flusher
from app.passages.edge_shard import TAIL, Pace, load_shard
from app.passages.payload import DENSE, EF_CONSTRUCT
from tests.passages.conftest import DIM, SPACE, OpenEdge, points, unit_vectors
from tests.passages.writer import BATCH

ROOT = Path(__file__).parents[2]


def run_writer_until(
    folder: Path,
    index_after: int,
    enough: Callable[[int, bool], bool],
    *options: str,
    variables: dict[str, str] | None = None,
) -> int:
    """Kills the writer with SIGKILL at that moment. Returns the start of the last acknowledged batch."""
    command = [sys.executable, "-m", "tests.passages.writer", str(folder), str(index_after), *options]
    environment = os.environ | (variables or {})
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = -1
        for line in writer.stdout:
            start, indexing = map(int, line.split())
            acknowledged = start
            if enough(start, bool(indexing)):
                writer.send_signal(signal.SIGKILL)
                break
        # What it printed before the signal took hold was acknowledged too.
        for line in writer.stdout:
            acknowledged = int(line.split()[0])
    assert writer.returncode == -signal.SIGKILL
    return acknowledged


def assert_all_there(store: EdgeStore, acknowledged: int) -> None:
    deleted = {f"w{start}" for start in range(0, acknowledged - 4 * BATCH + 1, BATCH)}
    expected = {f"w{i}" for i in range(acknowledged + BATCH)} - deleted
    found = {one.passage.id: one for one in store.fetch(sorted(expected | deleted), with_vectors=True)}
    assert found.keys() == expected
    vectors = unit_vectors(1_000, DIM)
    for id, one in found.items():
        np.testing.assert_array_equal(one.vector, vectors[int(id[1:]) % 1_000])


@pytest.mark.parametrize("batches", [3, 17, 41])
def test_every_acknowledged_write_survives_kill_9(tmp_path: Path, open_edge: OpenEdge, batches: int) -> None:
    last = run_writer_until(tmp_path / "passages", 10**9, lambda start, _: start >= batches * BATCH)
    store = open_edge()
    assert_all_there(store, last)
    assert store.info().writes >= last // BATCH


@pytest.mark.parametrize("more", [0, 3, 12])
def test_every_acknowledged_write_survives_kill_9_during_indexing(
    tmp_path: Path, open_edge: OpenEdge, more: int
) -> None:
    seen_indexing: list[int] = []

    def enough(start: int, indexing: bool) -> bool:
        if indexing:
            seen_indexing.append(start)
        return len(seen_indexing) > more

    last = run_writer_until(tmp_path / "passages", 300, enough)
    store = open_edge()
    assert_all_there(store, last)
    folder = tmp_path / "passages"
    assert len(list(folder.glob("shard-*"))) == 1
    assert list(folder.glob("build-*")) == []
    assert store.wait_indexed(60)


def test_writes_during_a_rebuild_are_there_after_it(open_edge: OpenEdge) -> None:
    store = open_edge(index_after=2_000)
    given = points(2_100)
    store.upsert(given)
    while not store.info().indexing:
        os.sched_yield()
    # More than a swap carries over while writers wait, so that both ways of carrying are taken.
    newer = points(2_100, seed=5)[: 2 * TAIL]
    store.upsert(newer)
    store.delete([f"p{i}" for i in range(1_000, 1_050)])
    renamed = Passage(id="p2000", text="renamed", metadata={"lang": "de"})
    store.set_metadata([(renamed, "new")])
    german = parse_filter({"must": [{"key": "n", "range": {"gte": 2_090}}]})
    assert german is not None
    assert store.delete_by_filter(german) == 10
    assert store.info().indexing
    assert store.wait_indexed(120)

    info = store.info()
    assert info.passages == store.count() == 2_040
    assert info.indexed >= 2_040 - 2 * TAIL - 1
    expected = {one.passage.id: one for one in given} | {one.passage.id: one for one in newer}
    for gone in [*range(1_000, 1_050), *range(2_090, 2_100)]:
        del expected[f"p{gone}"]
    expected["p2000"] = dataclasses.replace(expected["p2000"], passage=renamed, content_hash="new")
    found = store.fetch([f"p{i}" for i in range(2_100)], with_vectors=True)
    assert {one.passage.id for one in found} == expected.keys()
    for one in found:
        assert one.passage == expected[one.passage.id].passage
        assert one.content_hash == expected[one.passage.id].content_hash
        np.testing.assert_array_equal(one.vector, expected[one.passage.id].vector)


def test_searches_go_on_while_the_index_is_built_and_swapped(open_edge: OpenEdge, tmp_path: Path) -> None:
    store = open_edge(index_after=3_000)
    given = points(4_000, dimension=DIM)
    store.upsert(given)
    [query] = unit_vectors(1, seed=9)
    best = store.search(query, limit=1, exact=True)[0].id
    worst_s, searches = 0.0, 0
    done = threading.Event()
    threading.Thread(target=lambda: (store.wait_indexed(120), done.set())).start()
    while not done.is_set():
        start = time.perf_counter()
        assert store.search(query, limit=1)[0].id == best
        worst_s = max(worst_s, time.perf_counter() - start)
        searches += 1
    assert searches > 50
    assert worst_s < 1.0
    assert store.info().indexed == 4_000
    assert [path.name for path in (tmp_path / "passages").glob("shard-*")] == ["shard-000002"]


def test_the_index_finds_what_exact_search_finds(open_edge: OpenEdge) -> None:
    space = dataclasses.replace(SPACE, dimension=64)
    store = open_edge(space, index_after=1_000)
    store.upsert(points(3_000, dimension=64))
    assert store.wait_indexed(120)
    assert store.info().indexed == 3_000
    queries = list(unit_vectors(50, 64, seed=9))
    exact = store.search_batch(queries, limit=10, exact=True)
    quick = store.search_batch(queries, limit=10)
    found = [len({a.id for a in x} & {b.id for b in y}) for x, y in zip(exact, quick, strict=True)]
    assert sum(found) / 500 > 0.9


def test_an_index_of_an_older_config_stays_until_the_next_rebuild_makes_it_anew_once(
    open_edge: OpenEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_shard, "EF_CONSTRUCT", 100)
    old = open_edge(index_after=2_000)
    old.upsert(points(1_500))
    old.close()
    monkeypatch.undo()
    [folder] = (tmp_path / "passages").glob("shard-*")
    shard = load_shard(folder)
    assert shard.optimize()
    record = orjson.loads((folder.parent / "CURRENT").read_bytes())
    record["counted"] = shard.info().indexed_vectors_count  # as a rebuild notes it
    (folder.parent / "CURRENT").write_bytes(orjson.dumps(record))
    shard.close()
    assert built_with(folder) == {100}

    store = open_edge(index_after=2_000)
    assert store.wait_indexed(60)
    assert built_with(folder) == {100}
    assert store.info().indexed == 1_500
    store.upsert(points(3_600)[1_500:])
    assert store.wait_indexed(60)
    assert store.info().indexed == store.count() == 3_600
    store.close()
    [fresh] = (tmp_path / "passages").glob("shard-*")
    assert built_with(fresh) == {EF_CONSTRUCT}
    shard = load_shard(fresh, SPACE)
    assert not shard.optimize()  # there is nothing left to make anew
    shard.close()


def built_with(shard: Path) -> set[int]:
    """Candidates that were kept while the graphs of that shard were built."""
    configs = (orjson.loads(path.read_bytes()) for path in shard.glob("segments/*/segment.json"))
    indexes = (config["config"]["vector_data"][DENSE]["index"] for config in configs)
    return {index["options"]["ef_construct"] for index in indexes if index["type"] == "hnsw"}


def test_what_replaces_others_counts_as_unindexed_after_a_restart_too(open_edge: OpenEdge, tmp_path: Path) -> None:
    store = open_edge(index_after=300)
    store.upsert(points(400))
    assert store.wait_indexed(60)
    made = current_shard(tmp_path)
    store.upsert(points(200, seed=1))
    store.delete([f"p{number}" for number in range(390, 400)])
    assert store.wait_indexed(60)
    assert (store.info().passages, store.info().indexed) == (390, 190)
    store.close()
    store = open_edge(index_after=300)
    assert store.info().indexed == 190
    store.upsert(points(350, seed=2)[240:])
    assert store.wait_indexed(60)
    assert (store.info().passages, store.info().indexed) == (390, 390)
    assert current_shard(tmp_path) != made


def current_shard(folder: Path) -> str:
    return str(orjson.loads((folder / "passages" / "CURRENT").read_bytes())["shard"])


def test_a_small_collection_is_not_indexed(open_edge: OpenEdge) -> None:
    store = open_edge(index_after=1_000)
    store.upsert(points(1_000))
    assert store.wait_indexed(60)
    assert store.info().indexed == 0


def test_many_deletes_start_a_rebuild_that_drops_them(open_edge: OpenEdge, tmp_path: Path) -> None:
    store = open_edge(index_after=1_500)
    store.upsert(points(4_000))
    assert store.wait_indexed(120)
    before = (tmp_path / "passages" / "CURRENT").read_bytes()
    assert store.delete([f"p{i}" for i in range(1_600)]) == 1_600
    assert store.wait_indexed(120)
    assert (tmp_path / "passages" / "CURRENT").read_bytes() != before
    assert store.info().indexed == store.count() == 2_400


def test_a_failing_rebuild_leaves_the_store_as_it_was(
    open_edge: OpenEdge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    store = open_edge(index_after=500)
    store.upsert(points(1_000))
    assert store.wait_indexed(60)
    assert "searches go on without" in caplog.text
    assert store.info().indexed == 0
    assert len(store.search(unit_vectors(1)[0], limit=10)) == 10
    assert list((tmp_path / "passages").glob("build-*")) == []
    with pytest.raises(Unavailable, match="ended with 1"):
        store.export(tmp_path / "export")


def test_close_does_not_wait_for_a_rebuild(open_edge: OpenEdge) -> None:
    store = open_edge(index_after=1_000)
    store.upsert(points(2_000))
    while not store.info().indexing:
        os.sched_yield()
    store.close()
    again = open_edge(index_after=1_000)
    assert again.count() == 2_000
    assert again.wait_indexed(120)
    assert again.info().indexed == 2_000


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux's smaps")
def test_an_opened_store_takes_no_memory_for_what_opening_alone_reads(open_edge: OpenEdge, tmp_path: Path) -> None:
    store = open_edge()
    store.upsert(points(2_000))
    expected = [(hit.id, hit.score) for hit in store.search(unit_vectors(1)[0], limit=3)]
    store.close()
    store = open_edge()
    assert mapped_kb(tmp_path / "passages") < 1_000
    assert [(hit.id, hit.score) for hit in store.search(unit_vectors(1)[0], limit=3)] == expected
    assert mapped_kb(tmp_path / "passages") > 0
    store.upsert(points(10, seed=1))  # into pages that were given away
    assert store.search(points(1, seed=1)[0].vector, limit=1)[0].id == "p0"


def mapped_kb(folder: Path) -> int:
    """Resident pages of the folder's files that this process has mapped."""
    found, within = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line[:1] in "0123456789abcdef":
            within = str(folder) in line
        elif within and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_a_second_opener_is_told_who_holds_the_folder(open_edge: OpenEdge) -> None:
    open_edge()
    with pytest.raises(DataDirLocked, match=f"held by process {os.getpid()}"):
        open_edge()


def test_a_store_that_a_child_has_no_time_to_read_is_opened_all_the_same(
    open_edge: OpenEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_edge()
    store.upsert(points(3))
    store.close()
    (tmp_path / "passages" / "OPENING").touch()  # the last start was killed while it opened the shard
    monkeypatch.setattr(edge_open, "CHECK_S", 0.001)
    assert open_edge().count() == 3


def test_leftovers_of_a_crash_are_removed(open_edge: OpenEdge, tmp_path: Path) -> None:
    first = open_edge()
    first.upsert(points(5))
    first.close()
    folder = tmp_path / "passages"
    for name in ("build-1-0", "shard-000007"):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "deep" / "file").write_text("x")
    assert open_edge().count() == 5
    assert sorted(path.name for path in folder.iterdir()) == ["CURRENT", "LOCK", "WRITES", "shard-000001"]


def test_a_crash_before_the_first_shard_was_made_leaves_an_empty_store(open_edge: OpenEdge, tmp_path: Path) -> None:
    first = open_edge()
    first.close()
    (tmp_path / "passages" / "shard-000001").rename(tmp_path / "elsewhere")
    assert open_edge().count() == 0


def test_shards_without_a_pointer_are_not_touched(open_edge: OpenEdge, tmp_path: Path) -> None:
    open_edge().close()
    (tmp_path / "passages" / "CURRENT").unlink()
    with pytest.raises(Unavailable, match="no CURRENT file"):
        open_edge()
    assert (tmp_path / "passages" / "shard-000001").is_dir()


def test_a_damaged_shard_is_unavailable_and_the_lock_is_given_back(open_edge: OpenEdge, tmp_path: Path) -> None:
    open_edge().close()
    (tmp_path / "passages" / "shard-000001" / "edge_config.json").write_text("{")
    for segment in (tmp_path / "passages" / "shard-000001" / "segments").iterdir():
        (segment / "segment.json").unlink()
    with pytest.raises(Unavailable, match="cannot be opened"):
        open_edge()
    with pytest.raises(Unavailable, match="cannot be opened"):
        open_edge()


def test_an_export_shows_one_moment_while_writes_go_on(open_edge: OpenEdge, tmp_path: Path) -> None:
    store = open_edge()
    given = points(20_000)
    store.upsert(given[:3_000])
    stop = threading.Event()

    def write_on() -> None:
        for point in given[3_000:]:
            if stop.is_set():
                return
            store.upsert([point])

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        store.export(tmp_path / "export")
    finally:
        stop.set()
        writer.join()
    names = orjson.loads((tmp_path / "export" / "ids.json").read_bytes())
    count = len(names)
    assert set(names) == {f"p{i}" for i in range(count)}
    assert 3_000 <= count < store.count()
    assert np.load(tmp_path / "export" / "vectors.npy").shape == (count, DIM)


def test_many_threads_write_and_read_at_once(open_edge: OpenEdge) -> None:
    store = open_edge(index_after=500)
    given = points(1_600)
    failures: list[BaseException] = []

    def work(part: int) -> None:
        try:
            for start in range(part * 400, part * 400 + 400, 100):
                store.upsert(given[start : start + 100], durable=True)
                assert len(store.fetch([f"p{i}" for i in range(start, start + 100)])) == 100
                assert store.search(given[start].vector, limit=1)[0].id == f"p{start}"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.wait_indexed(120)
    assert store.count() == 1_600


def test_a_durable_write_waits_for_a_sync_that_began_after_it() -> None:
    began, allowed, ended = threading.Semaphore(0), threading.Semaphore(0), []

    def sync() -> None:
        began.release()
        allowed.acquire()
        ended.append(True)

    flusher = Flusher(sync, within_s=0)
    flusher.written()
    began.acquire()
    ticket = flusher.written()
    allowed.release(2)
    flusher.wait(ticket)
    assert len(ended) == 2
    flusher.close()


def test_a_failed_sync_is_told_to_those_who_wait(caplog: pytest.LogCaptureFixture) -> None:
    problems = [OSError("no space left"), None]

    def sync() -> None:
        if problem := problems.pop(0):
            raise problem

    flusher = Flusher(sync, within_s=3_600)
    ticket = flusher.written()
    with pytest.raises(Unavailable, match="no space left"):
        flusher.wait(ticket)
    flusher.wait(flusher.written())
    flusher.close()
    assert "could not be flushed" in caplog.text


def test_a_failed_sync_is_tried_again_though_nothing_more_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_flush, "RETRY_S", 0.05)
    problems = [OSError("no space left"), OSError("no space left"), None]
    synced = threading.Event()

    def sync() -> None:
        if problem := problems.pop(0):
            raise problem
        synced.set()

    flusher = Flusher(sync, within_s=0)
    flusher.written()
    assert synced.wait(30)
    flusher.wait()
    flusher.close()
    assert problems == []


def test_a_stop_does_not_wait_for_a_sync_that_goes_on_failing() -> None:
    def sync() -> None:
        raise OSError("the disk is gone")

    flusher = Flusher(sync, within_s=0)
    flusher.written()
    flusher.close()


def test_pace_grows_and_shrinks_by_at_most_two() -> None:
    pace = Pace(64, target_s=10.0, most=200)
    with pace.measured(64):
        pass
    assert pace.size == 128
    with pace.measured(128):
        pass
    assert pace.size == 200
    slow = Pace(64, target_s=1e-9)
    with slow.measured(64):
        pass
    assert slow.size == 32
    assert [len(part) for part in slow.slices(range(70))] == [32, 32, 6]


def test_edge_flushes_no_shard_that_is_being_copied(open_edge: OpenEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flush cuts the log: a copy could have the segments of before and the log of after, and lack writes."""
    monkeypatch.setattr("app.passages.edge.LOG_LIMIT", 10)
    store = open_edge()
    store.upsert(points(5))
    store.flush()
    with store._slot.writing() as writer:  # as whoever copies does
        writer.handle.unflushed = 100
        flushing = threading.Thread(target=store._sync)
        flushing.start()
        flushing.join(0.3)
        assert flushing.is_alive()
        assert writer.handle.unflushed == 100
    flushing.join(30)
    assert writer.handle.unflushed == 0


def test_a_snapshot_is_a_store_of_that_moment(tmp_path: Path, open_edge: OpenEdge) -> None:
    store = open_edge()
    given = points(500)
    store.upsert(given)
    seen: list[int] = []
    store.snapshot(tmp_path / "copy", lambda: seen.append(store.count()))
    store.delete(["p1"])
    copy = EdgeStore(tmp_path / "copy", SPACE)
    try:
        assert seen == [copy.count()] == [500]
        assert copy.info().writes == store.info().writes - 1
        wanted = [one.passage.id for one in given]
        for one, stored in zip(given, copy.fetch(wanted, with_vectors=True), strict=True):
            np.testing.assert_array_equal(one.vector, stored.vector)
    finally:
        copy.close()
