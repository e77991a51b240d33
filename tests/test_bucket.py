"""Folders in a bucket, against a real S3 server: whole or not there, verified, and refused in words."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import app.bucket
from app.bucket import Bucket, Damaged, Misconfigured, all_files
from app.errors import Conflict, Unavailable
from tests.s3 import S3Server, files_below, s3_server

BIG = bytes(range(256)) * 40_000  # 10 MB: goes up in parts and comes down in pieces
FILES = {"adiabat.json": b"{}", "1_Pooling/config.json": b'{"a": 1}', "model.safetensors": BIG, "empty": b""}


@pytest.fixture
def url(s3: S3Server) -> str:
    return s3.fresh()


@pytest.fixture
def bucket(url: str) -> Bucket:
    return Bucket(url, writer="registry A")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "folder", FILES)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def fetched(bucket: Bucket, name: str, folder: Path) -> dict[str, bytes]:
    content = bucket.content(name)
    assert content is not None
    bucket.fetch(content, folder)
    return files_below(folder)


def test_what_is_published_comes_back_byte_for_byte_and_is_gone_when_it_is_removed(
    s3: S3Server, url: str, bucket: Bucket, folder: Path, tmp_path: Path
) -> None:
    bucket.check()
    bucket.publish("encoders/bees@1", folder)
    assert fetched(bucket, "encoders/bees@1", tmp_path / "here") == FILES
    assert bucket.names("encoders") == ["encoders/bees@1"]
    bucket.remove("encoders/bees@1")
    bucket.remove("encoders/bees@1")
    assert bucket.content("encoders/bees@1") is None
    assert s3.objects(url) == {}


def test_nothing_is_seen_of_what_has_no_name_yet(bucket: Bucket, folder: Path) -> None:
    content = bucket.upload(folder, all_files(folder))
    assert bucket.names("encoders") == []
    bucket.name("encoders/bees@1", content, new=True)
    assert bucket.names("encoders") == ["encoders/bees@1"]


def test_what_is_published_again_sends_only_what_changed_and_leaves_nothing_of_before(
    s3: S3Server, url: str, bucket: Bucket, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.publish("jobs/a/checkpoints", folder)
    sent: list[str] = []
    send = Bucket.send
    monkeypatch.setattr(
        Bucket, "send", lambda self, *given: (sent.extend(each.path for each in given[2]), send(self, *given))
    )
    (folder / "empty").unlink()
    bucket.publish("jobs/a/checkpoints", write(folder, {"step-2": b"two"}))
    assert sent == ["step-2"]
    assert fetched(bucket, "jobs/a/checkpoints", tmp_path / "here") == {
        **{name: content for name, content in FILES.items() if name != "empty"},
        "step-2": b"two",
    }
    assert len(s3.objects(url)) == 1 + 4


@pytest.mark.parametrize("lie", [b"{]", b"", BIG[:-1] + b"\0"])
def test_an_object_that_was_changed_in_place_is_refused_by_its_name(
    s3: S3Server, url: str, bucket: Bucket, folder: Path, tmp_path: Path, lie: bytes
) -> None:
    bucket.publish("encoders/bees@1", folder)
    [path] = [path for path, content in s3.objects(url).items() if content == BIG]
    s3.put(url, path, lie)
    with pytest.raises(Damaged, match=f"{url}/{path}, model.safetensors, has SHA-256"):
        fetched(bucket, "encoders/bees@1", tmp_path / "here")
    s3.put(url, "encoders/bees@1.json", lie)
    with pytest.raises(Damaged, match=f"{url}/encoders/bees@1.json was changed"):
        bucket.content("encoders/bees@1")
    s3.put(url, path, BIG)
    with pytest.raises(Conflict, match="remove it, and repeat the call"):
        bucket.name("encoders/bees@1", bucket.upload(folder, []), new=True)
    bucket.publish("encoders/bees@1", folder)
    assert fetched(bucket, "encoders/bees@1", tmp_path / "there") == FILES


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "", "a\0b"])
def test_no_name_leads_out_of_the_folder(s3: S3Server, url: str, bucket: Bucket, tmp_path: Path, path: str) -> None:
    told = {"area": "a", "files": [{"path": path, "sha256": "0" * 64, "size": 1}], "writer": ""}
    s3.put(url, "encoders/bees@1.json", json.dumps(told).encode())
    with pytest.raises(Damaged, match="names a file"):
        fetched(bucket, "encoders/bees@1", tmp_path / "here")
    assert not (tmp_path / "outside").exists()


def test_another_registrys_name_is_never_taken_and_what_a_crash_of_ours_left_is(
    url: str, bucket: Bucket, folder: Path
) -> None:
    other = Bucket(url, writer="registry B")
    bucket.name("encoders/bees@1", bucket.upload(folder, all_files(folder)), new=True)
    with pytest.raises(Conflict, match=r"encoders/bees@1.json was put there .* another registry, registry A"):
        other.name("encoders/bees@1", other.upload(folder, []), new=True)
    before, again = bucket.content("encoders/bees@1"), bucket.upload(folder, [folder / "empty"])
    bucket.name("encoders/bees@1", again, new=True)
    assert bucket.content("encoders/bees@1") == again
    [lost] = bucket.names("lost")
    assert bucket.content(lost) == before  # for whoever finds that the registry was an older one


def test_a_sweep_takes_what_is_done_with_sets_aside_what_is_unknown_and_leaves_what_is_new_or_anothers(
    s3: S3Server, url: str, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("encoders/kept@1", "encoders/unknown@1", "datasets/done"):
        bucket.publish(name, folder)
    Bucket(url, writer="registry B").publish("encoders/theirs@1", folder)
    bucket.upload(folder, [folder / "adiabat.json"])  # a crash came before its name

    def sweep() -> list[str]:
        return bucket.sweep(("encoders", "datasets"), lambda: {"encoders/kept@1"}, lambda name: "done" in name)

    assert sweep() == ["datasets/done"]  # all else may have come just now
    monkeypatch.setattr(app.bucket, "STALE_S", -60.0)
    unknown, area = sweep()
    assert (unknown, area.startswith("objects/")) == ("encoders/unknown@1", True)
    assert bucket.names("encoders") == ["encoders/kept@1", "encoders/theirs@1"]
    [lost] = bucket.names("lost")
    assert lost.startswith("lost/encoders/unknown@1-")
    assert sweep() == []
    assert len(s3.objects(url)) == 3 + 3 * len(FILES)
    bucket.publish("datasets/done", folder)
    bucket.upload(folder, [folder / "adiabat.json"])
    s3.put(url, "datasets/a.json", b"{]")
    assert sweep() == ["datasets/done"]  # whose objects a name has that cannot be read, nobody knows
    bucket.remove("datasets/a")
    [area] = sweep()
    assert area.startswith("objects/")


def test_a_bucket_that_is_not_there_and_a_server_that_is_not_there_are_told_apart(
    s3: S3Server, url: str, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Misconfigured, match=r"s3://nowhere/a names a bucket that does not exist"):
        Bucket("s3://nowhere/a").check()
    monkeypatch.setitem(app.bucket.RETRIES, "max_retries", 1)
    monkeypatch.setitem(app.bucket.TIMEOUTS, "read_timeout", timedelta(seconds=0.5))
    waiting = Bucket(url)
    for away in (s3.hanging(), killed(s3)):
        with away:
            began = time.monotonic()
            for call in (lambda: waiting.content("encoders/a"), lambda: waiting.publish("a", folder), waiting.check):
                with pytest.raises(Unavailable, match=f"{url} does not answer .* AWS_ENDPOINT_URL") as refused:
                    call()
                assert not isinstance(refused.value, Misconfigured)
                assert len(refused.value.detail) < 600
            assert time.monotonic() - began < 15
    bucket.check()


def killed(s3: S3Server) -> "Killed":
    return Killed(s3)


class Killed:
    def __init__(self, s3: S3Server) -> None:
        self._s3 = s3

    def __enter__(self) -> None:
        self._s3.kill()

    def __exit__(self, *_: object) -> None:
        self._s3.start()


@pytest.fixture(scope="module")
def strict() -> Iterator[S3Server]:
    """It asks for permissions, after the first call, which makes the bucket."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        yield server


def test_keys_that_may_not_and_no_keys_at_all_are_told(strict: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = strict.fresh()
    with pytest.raises(Misconfigured, match=r"refuses access .* AWS_ACCESS_KEY_ID .* s3:GetObject"):
        Bucket(url).check()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")  # this machine has no role, whatever it is
    with pytest.raises(Misconfigured, match="There are no credentials for the artifact store"):
        Bucket(url).check()
