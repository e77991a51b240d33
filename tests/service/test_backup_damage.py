"""Backups and data folders that are damaged, hostile or of another release: told by name, and nothing is restored."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge

from app.backup.archive import ABOUT, REGISTRY, SUMS
from app.backup.restoring import UNFINISHED, restore
from app.backup.verifying import verify_folder
from app.errors import AdiabatError
from app.passages.edge_shard import load_shard
from app.passages.payload import OURS, point_id
from app.registry.database import known_revisions
from app.settings import Settings
from tests.service.backups import PASSAGES, Saved, adiabat

DIMENSION = 32  # of the tiny encoder


def refused(file: Path, settings: Settings) -> str:
    """Why it is not restored; the folder is as it was."""
    with pytest.raises(AdiabatError) as caught:
        restore(file, settings.data_dir)
    assert [path.name for path in settings.data_dir.iterdir()] == ["service.lock"]
    return caught.value.detail


@pytest.mark.parametrize("member", [ABOUT, REGISTRY, "artifacts/base@1/model.safetensors", "segment.json", SUMS])
def test_damage_is_refused_by_name_and_nothing_is_restored(
    saved: Saved, elsewhere: Settings, tmp_path: Path, member: str
) -> None:
    hurt = tmp_path / "hurt.tar"
    shutil.copyfile(saved.file, hurt)
    with tarfile.open(saved.file) as archive:
        found = next(each for each in archive if each.name.endswith(member))
    with hurt.open("r+b") as file:
        file.seek(found.offset_data + found.size // 2)
        [byte] = file.read(1)
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    named = found.name if member != SUMS else "is damaged: "
    assert named in adiabat(elsewhere, "verify", str(hurt), code=1)
    assert named in refused(hurt, elsewhere)


def test_a_file_that_was_cut_off_is_refused(saved: Saved, elsewhere: Settings, tmp_path: Path) -> None:
    whole = saved.file.read_bytes()
    cut = tmp_path / "cut.tar"
    for length in (0, 600, len(whole) // 2, len(whole) - 3 * 512):
        cut.write_bytes(whole[:length])
        said = refused(cut, elsewhere)
        assert "cut.tar" in said or "cannot be read" in said


def rewritten(saved: Saved, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The backup with other members, and checksums that fit them."""
    with tarfile.open(saved.file) as archive:
        files = {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]
    del files[SUMS]
    change(files)
    files[SUMS] = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()
    ).encode()
    with tarfile.open(target, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 2}, ("format 2", "reads up to 1")),
        ({"schema": "0999"}, ("schema revision 0999", f"reads up to {known_revisions()[0]}")),
        ({"store": "99.1.0"}, ("Qdrant Edge 99.1.0", "reads up to 0.9.0")),
        ({"version": None, "format": "x"}, ("no backup of this product",)),
    ],
)
def test_what_a_newer_release_wrote_is_refused_naming_both(
    saved: Saved, elsewhere: Settings, tmp_path: Path, changes: dict[str, Any], named: tuple[str, ...]
) -> None:
    def change(files: dict[str, bytes]) -> None:
        files[ABOUT] = json.dumps(json.loads(files[ABOUT]) | changes).encode()

    said = refused(rewritten(saved, tmp_path / "newer.tar", change), elsewhere)
    assert all(each in said for each in named)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../outside", "points outside"),
        ("/etc/outside", "points outside"),
        ("session.secret", "which no backup has"),
        ("artifacts/con", "a name that no file here can have"),
        ("Registry.db", "twice"),
    ],
)
def test_members_that_no_backup_has_are_refused_before_anything_is_read(
    saved: Saved, elsewhere: Settings, tmp_path: Path, name: str, said: str
) -> None:
    hostile = rewritten(saved, tmp_path / "hostile.tar", lambda files: files.update({name: b"x"}))
    assert said in refused(hostile, elsewhere)
    assert not (tmp_path / "outside").exists()


def test_links_and_members_without_a_checksum_or_that_are_missing_are_refused(
    saved: Saved, elsewhere: Settings, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.tar"
    link, extra = tarfile.TarInfo("artifacts/link"), tarfile.TarInfo("artifacts/extra")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for info, said in ((link, "is no plain file"), (extra, "artifacts/extra has no checksum")):
        shutil.copyfile(saved.file, odd)
        with tarfile.open(odd, "a") as archive:
            archive.addfile(info)
        assert said in refused(odd, elsewhere)
    with tarfile.open(saved.file) as archive, tarfile.open(odd, "w") as less:
        for each in archive:
            if each.name != REGISTRY:
                less.addfile(each, archive.extractfile(each))
    assert "registry.db is missing" in refused(odd, elsewhere)


def test_a_folder_that_holds_anything_is_left_alone(saved: Saved, elsewhere: Settings) -> None:
    elsewhere.data_dir.mkdir()
    (elsewhere.data_dir / "notes.txt").write_text("mine")
    with pytest.raises(AdiabatError, match=r"not empty \(it has notes.txt\)"):
        restore(saved.file, elsewhere.data_dir)
    assert (elsewhere.data_dir / "notes.txt").read_text() == "mine"
    assert not (elsewhere.data_dir / UNFINISHED).exists()


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def _zero(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * page)
        file.write(bytes(4096))


@contextmanager
def _shard(folder: Path) -> Iterator[Any]:
    """Open, and without the log that it could be repaired from when that is over."""
    shard = folder / "passages" / "shard-000001"
    opened = load_shard(shard)
    yield opened
    opened.flush()
    opened.close()
    for log in (shard / "wal").iterdir():
        log.unlink()


def _segments(folder: Path) -> Path:
    with _shard(folder):
        pass
    return folder / "passages" / "shard-000001" / "segments"


def _turn_vectors(folder: Path) -> None:
    """All have unit length still, and each is another passage's."""
    [vectors] = _segments(folder).glob("*/vector_storage-dense/vectors/chunk_0.mmap")
    content, width = vectors.read_bytes(), 4 * DIMENSION
    end = PASSAGES * width
    vectors.write_bytes(content[width:end] + content[:width] + content[end:])


def _spoil_payloads(folder: Path) -> None:
    for path in _segments(folder).glob("*/payload_storage/page_0.dat"):
        with path.open("r+b") as file:
            file.write(b"\xff" * 2**20)


def _change_a_text(folder: Path) -> None:
    with _shard(folder) as shard:
        [record] = shard.retrieve([point_id("p7")], True, False)
        payload = {**record.payload, OURS: {**record.payload[OURS], "text": "another text"}}
        shard.update(edge.UpdateOperation.overwrite_payload([point_id("p7")], payload))


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (
            lambda folder: _flip(folder / "artifacts" / "bees@1" / "delta.safetensors", -8),
            "bees@1 does not have the digest",
        ),
        (lambda folder: shutil.rmtree(folder / "artifacts" / "wasps@1"), "wasps@1"),
        (lambda folder: _flip(next(folder.glob("artifacts/datasets/*/queries.jsonl")), 20), "is missing, or not what"),
        (lambda folder: _zero(folder / REGISTRY, 2), "registry.db is damaged"),
        (_turn_vectors, "another vector than base@1 makes"),
        (_change_a_text, "its text or metadata are not as they were written"),
        (_spoil_payloads, "cannot be read"),
    ],
)
def test_verify_finds_what_is_wrong_in_a_data_folder(
    saved: Saved, elsewhere: Settings, hurt: Callable[[Path], None], said: str
) -> None:
    restore(saved.file, elsewhere.data_dir)
    hurt(elsewhere.data_dir)
    wrong = [finding for finding in verify_folder(elsewhere) if finding.level == "fail"]
    assert wrong, list(verify_folder(elsewhere))
    assert any(said in finding.said for finding in wrong), wrong


@pytest.fixture(autouse=True)
def _no_archives_left(tmp_path: Path) -> Iterator[None]:
    """Each is a hundred megabytes."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)
