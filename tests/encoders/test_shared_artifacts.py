"""Copies of what a bucket holds: brought when they are asked for, gone when they take too much."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import app.bucket
from app.beir import digest
from app.bucket import Bucket, Content
from app.encoders.artifacts import ArtifactStore
from app.encoders.shared_artifacts import SharedArtifacts, open_shared
from app.errors import BadDataset, Conflict, EncoderBroken, Unavailable
from app.lock import FileLock
from app.registry import Registry
from app.registry.turn import Turn
from app.settings import Settings
from tests.postgres import Server
from tests.s3 import S3Server, files_below

SIZE = 100_000


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    return Bucket(s3.fresh(), writer="us")


def shared(
    bucket: Bucket, root: Path, *, copies: int = 99, pinned: set[str] | None = None, in_use_s: float = 0.0
) -> SharedArtifacts:
    """Room for so many artifacts of `stocked`."""
    return SharedArtifacts(root, bucket, max_bytes=copies * SIZE, pinned=lambda: pinned or set(), in_use_s=in_use_s)


def stocked(bucket: Bucket, tmp_path: Path, *keys: str) -> None:
    for key in keys:
        folder = tmp_path / "stock" / key
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(os.urandom(SIZE))
        bucket.publish(f"encoders/{key}", folder)


def used(store: SharedArtifacts, *keys: str) -> set[str]:
    """What is on disk after these were used, in this order and each some time after the other."""
    for at, key in enumerate(keys):
        folder = store.folder(key)
        os.utime(folder, (at, at))
    return set(store.keys())


def test_what_was_not_used_for_longest_leaves_but_never_the_base_or_what_is_pinned(
    bucket: Bucket, tmp_path: Path
) -> None:
    stocked(bucket, tmp_path, "base@1", "a@1", "b@1", "c@1", "d@1")
    store = shared(bucket, tmp_path / "here", copies=3, pinned={"a@1"})
    assert used(store, "base@1", "a@1", "b@1") == {"base@1", "a@1", "b@1"}
    assert used(store, "base@1", "a@1", "b@1", "c@1") == {"base@1", "a@1", "c@1"}
    assert used(store, "c@1", "a@1", "base@1", "d@1") == {"base@1", "a@1", "d@1"}
    assert files_below(store.folder("b@1")) == files_below(tmp_path / "stock" / "b@1")


def test_what_somebody_just_asked_for_stays_though_it_is_too_much(bucket: Bucket, tmp_path: Path) -> None:
    stocked(bucket, tmp_path, "base@1", "a@1", "b@1")
    store = shared(bucket, tmp_path / "here", copies=1, in_use_s=60)
    for key in ("base@1", "a@1", "b@1"):
        store.folder(key)
    assert set(store.keys()) == {"base@1", "a@1", "b@1"}


def test_while_the_registry_is_away_nothing_leaves(bucket: Bucket, tmp_path: Path) -> None:
    stocked(bucket, tmp_path, "a@1", "b@1")

    def away() -> set[str]:
        raise Unavailable

    store = SharedArtifacts(tmp_path / "here", bucket, max_bytes=0, pinned=away, in_use_s=0)
    assert used(store, "a@1", "b@1") == {"a@1", "b@1"}


def test_many_that_ask_at_once_get_one_whole_copy(bucket: Bucket, tmp_path: Path) -> None:
    stocked(bucket, tmp_path, "a@1")
    store = shared(bucket, tmp_path / "here")
    found: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(files_below(store.folder("a@1")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [files_below(tmp_path / "stock" / "a@1")] * 8
    assert not list(store.root.glob(".staging-*"))


def test_what_is_gone_from_the_bucket_is_told_with_its_address(bucket: Bucket, tmp_path: Path) -> None:
    store = shared(bucket, tmp_path / "here")
    with pytest.raises(EncoderBroken, match=f"a@1 is not in {bucket.url}"):
        store.folder("a@1")
    assert not store.has("a@1")


def test_a_publication_that_is_broken_off_leaves_nothing_behind(s3: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    store = shared(bucket, tmp_path / "here")

    def staged(staging: Path) -> Path:
        (staging / "weights").write_bytes(b"1")
        (staging / "adiabat.json").write_text("{}")
        return staging

    with pytest.raises(ZeroDivisionError), store.staging() as staging, store.placing(staged(staging)):
        raise ZeroDivisionError
    assert s3.objects(bucket.url) == {}
    with pytest.raises(ZeroDivisionError), store.staging() as staging, store.placing(staged(staging)) as place:
        place("a@1") or 1 / 0  # and whether its row was written, nobody knows
    assert bucket.names("encoders") == ["encoders/a@1"]
    assert store.keys() == []
    with store.staging() as staging, store.placing(staged(staging)) as place:
        place("a@1")
    assert store.keys() == ["a@1"]


def kept(store: SharedArtifacts) -> str:
    """The digest of a dataset, which is put now."""
    with store.staging() as staging:
        (staging / "qrels").mkdir()
        (staging / "queries.jsonl").write_text('{"_id": "q", "text": "t"}\n')
        (staging / "qrels" / "test.tsv").write_text("q\tp\t1\n")
        content = digest(staging)
        with store.keeping(staging, content) as keep:
            keep()
    return content


def test_a_dataset_is_kept_there_brought_here_and_refused_where_it_is_another(
    s3: S3Server, bucket: Bucket, tmp_path: Path
) -> None:
    first, second = shared(bucket, tmp_path / "first"), shared(bucket, tmp_path / "second")
    content = kept(first)
    assert files_below(second.dataset(content)) == files_below(first.dataset(content))
    name = content.removeprefix("sha256:")
    lie = s3.objects(bucket.url)[f"datasets/{name}.json"].replace(b"test.tsv", b"more.tsv")
    s3.put(bucket.url, f"datasets/{name}.json", lie)
    third = shared(bucket, tmp_path / "third")
    with pytest.raises(BadDataset, match="names other files"):
        third.dataset(content)
    assert list(third.datasets.iterdir()) == []
    assert kept(first) == content  # uploaded again, as the sentence says
    assert files_below(third.dataset(content)) == files_below(second.dataset(content))
    first.remove_dataset(content)
    assert s3.objects(bucket.url) == {}


def test_a_dataset_that_is_put_again_or_removed_while_it_is_fetched(
    s3: S3Server, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its objects leave with the area that they were in."""
    first, second, third = (shared(bucket, tmp_path / name) for name in ("first", "second", "third"))
    content, fetch = kept(first), Bucket.fetch
    meanwhile: list[Callable[[], object]] = []

    def fetching(self: Bucket, found: Content, folder: Path) -> None:
        if meanwhile:
            meanwhile.pop()()
        fetch(self, found, folder)

    monkeypatch.setattr(Bucket, "fetch", fetching)
    meanwhile.append(lambda: kept(first))
    assert files_below(second.dataset(content)) == files_below(first.dataset(content)) != {}
    assert len(s3.objects(bucket.url)) == 3
    meanwhile.append(lambda: first.remove_dataset(content))
    assert not third.dataset(content).exists()
    assert not meanwhile


def test_what_another_registry_has_put_there_stays_though_it_is_removed_here(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stocked(bucket, tmp_path, "a@1")
    ours, theirs = shared(bucket, tmp_path / "us"), shared(Bucket(bucket.url, writer="them"), tmp_path / "them")
    content = kept(ours)
    name = f"datasets/{content.removeprefix('sha256:')}"
    assert theirs.folder("a@1").exists()
    assert kept(theirs) == content  # which makes it none of theirs
    theirs.remove_dataset(content)
    theirs.remove("a@1")
    said = [record.message for record in caplog.records]
    assert [each.partition(" on another")[0] for each in said] == [
        f"{each} stays in the bucket: {bucket.url}/{each}.json was put there by a service"
        for each in (name, "encoders/a@1")
    ]
    assert (theirs.keys(), list(theirs.datasets.iterdir())) == ([], [])
    shutil.rmtree(ours.dataset(content))
    assert ours.dataset(content).exists()
    assert ours.has("a@1")
    theirs.withdraw(name, damaged=True)  # what nobody can use
    assert bucket.names("datasets") == []


def test_a_dataset_that_was_sent_for_nothing_leaves_nothing(s3: S3Server, bucket: Bucket, tmp_path: Path) -> None:
    """The turn that its name waits for may never come."""
    store, sent = shared(bucket, tmp_path / "here"), list[int]()

    def send() -> None:
        with store.staging() as staging:
            (staging / "queries.jsonl").write_text("{}")
            with store.keeping(staging, "sha256:ab"):
                sent.append(len(s3.objects(bucket.url)))
                raise Unavailable

    with pytest.raises(Unavailable):
        send()
    assert sent == [1]
    assert s3.objects(bucket.url) == {}
    assert list(store.datasets.iterdir()) == []


def test_a_registry_in_sqlite_that_was_copied_to_another_host_takes_nothing_of_the_first_ones_away(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first goes on beside it cannot be seen from there."""
    settings = Settings(data_dir=tmp_path / "data", artifacts_url=s3.fresh())
    registry = Registry(settings.registry_path)
    first = open_shared(str(settings.artifacts_url), settings, registry)
    with first.staging() as staging:
        (staging / "adiabat.json").write_text("{}")
        first.share("encoders/bees@1", staging)
        first.share("datasets/ab", staging)
    registry.datasets.put("d", "sha256:ab", {})
    registry.datasets.delete("d")
    assert first.left_datasets(registry) == ["sha256:ab"]
    registry.close()
    shutil.copytree(settings.data_dir, tmp_path / "copy")
    before = s3.objects(str(settings.artifacts_url))

    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(app.bucket, "STALE_S", -60.0)
    moved = settings.model_copy(update={"data_dir": tmp_path / "copy"})
    registry = Registry(moved.registry_path)
    copy = open_shared(str(moved.artifacts_url), moved, registry)
    assert (copy.folder("bees@1") / "adiabat.json").is_file()
    with copy.staging() as staging:
        (staging / "adiabat.json").write_text('{"other": 1}')
        theirs = r"put there by a service on another registry, .*data/registry.db.* before it moved, remove the object"
        with pytest.raises(Conflict, match=theirs), copy.placing(staging) as place:
            place("bees@1")
    assert copy.left_datasets(registry) == []
    copy.sweep(registry)
    assert s3.objects(str(settings.artifacts_url)) == before
    registry.close()


def test_a_folder_alone_has_nothing_to_bring(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.obtain("jobs/a/checkpoints", tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()
    assert not store.renew("base@1")


def test_a_turn_is_one_for_all_hosts_and_a_thread_may_take_it_again(postgres: Server, tmp_path: Path) -> None:
    url = postgres.migrated()
    here, there = Registry(url), Registry(url)
    mine = Turn(here.database, FileLock(tmp_path / "here"))
    theirs = Turn(there.database, FileLock(tmp_path / "there"))
    order: list[str] = []

    def second() -> None:
        with theirs:
            order.append("second")

    with mine, mine:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)  # time enough to come first, were there no turn
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    here.close()
    there.close()
    postgres.drop(url)
