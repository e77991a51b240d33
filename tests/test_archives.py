"""Archives, good ones in every form and hostile ones: refused with a sentence, and nothing outside is touched."""

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.archives import MAX_ENTRIES, MAX_HEADER_BYTES, unpack
from app.errors import SourceRefused, TooLarge

Packer = Callable[[dict[str, bytes]], bytes]

FILES = {"modules.json": b"[]", "1_Pooling/config.json": b"{}"}
LIMIT = 1_000_000


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return buffer.getvalue()


def gzipped(files: dict[str, bytes]) -> bytes:
    return gzip.compress(tarred(files))


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, target
    return info


def read(content: bytes, folder: Path, max_bytes: int = LIMIT) -> dict[str, bytes]:
    folder.mkdir()
    unpack(io.BytesIO(content), folder, max_bytes=max_bytes, refused=SourceRefused)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packed", [zipped, tarred, gzipped])
@pytest.mark.parametrize("prefix", ["", "./", "model/", "./model/"])
def test_every_form_gives_the_files_without_their_one_top_folder(tmp_path: Path, packed: Packer, prefix: str) -> None:
    assert read(packed({prefix + name: content for name, content in FILES.items()}), tmp_path / "out") == FILES


def test_what_a_mac_adds_is_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/m/._x": b"", "m/.DS_Store": b"", "m/._modules.json": b""}
    assert read(zipped({f"m/{name}": content for name, content in FILES.items()} | junk), tmp_path / "out") == FILES


@pytest.mark.parametrize("packed", [zipped, tarred, gzipped])
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("../escaped", "outside"),
        ("m/../../escaped", "outside"),
        ("..\\escaped", "outside"),
        ("/tmp/escaped", "outside"),
        ("x" * 300, "name"),
        ("/".join("abcdefghijk"), "name"),
        ("a\nb", "name"),
        ("model\u202esrotsnetefas.txt", "name"),
        ("m/nul", "name"),
        ("m/COM1.json", "name"),
    ],
)
def test_a_name_that_leads_out_or_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, packed: Packer, name: str, word: str
) -> None:
    with pytest.raises(SourceRefused, match=word):
        read(packed(FILES | {name: b"x"}), tmp_path / "out")
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


@pytest.mark.parametrize(
    "odd",
    [
        special(tarfile.SYMTYPE, "/etc/passwd"),
        special(tarfile.LNKTYPE, "modules.json"),
        special(tarfile.CHRTYPE),
        special(tarfile.BLKTYPE),
        special(tarfile.FIFOTYPE),
    ],
    ids=["symlink", "hardlink", "character device", "block device", "fifo"],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, odd: tarfile.TarInfo) -> None:
    with pytest.raises(SourceRefused, match="no plain file"):
        read(tarred(FILES, odd), tmp_path / "out")
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SourceRefused, match="link"):
        read(buffer.getvalue(), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")  # what zipfile says while the hostile archive is made
@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b/c", "a/b"), ("a", "A"), ("é", "e\u0301")]
)
def test_a_name_twice_or_as_file_and_folder_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("modules.json", *names):
            archive.writestr(name, "x")
    with pytest.raises(SourceRefused, match="twice"):
        read(buffer.getvalue(), tmp_path / "out")


@pytest.mark.parametrize("packed", [zipped, tarred, gzipped])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, packed: Packer) -> None:
    with pytest.raises(TooLarge, match="ADIABAT_MAX_ARCHIVE_BYTES"):
        read(packed({"a": bytes(LIMIT // 2), "b": bytes(LIMIT // 2 + 1)}), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("packed", [zipped, gzipped])
def test_much_from_little_is_refused_below_the_limit_too(tmp_path: Path, packed: Packer) -> None:
    with pytest.raises(TooLarge, match="200 times"):
        read(packed({"a": bytes(LIMIT)}), tmp_path / "out", max_bytes=2 * LIMIT)


@pytest.mark.parametrize("packed", [zipped, tarred, gzipped])
def test_too_many_entries_are_refused(tmp_path: Path, packed: Packer) -> None:
    many = {f"f{n}": b"" for n in range(MAX_ENTRIES)}
    assert len(read(packed(many), tmp_path / "many")) == MAX_ENTRIES
    with pytest.raises(TooLarge, match="entries"):
        read(packed(many | {"one": b""}), tmp_path / "more")


def test_folders_count_as_entries_too(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="entries"):
        read(tarred({}, *(special(tarfile.DIRTYPE) for _ in range(MAX_ENTRIES + 1))), tmp_path / "out")


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    head = bytearray(special(tarfile.XHDTYPE).tobuf())
    head[124:136] = b"77777777777\0"  # 8 GiB
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    with pytest.raises(SourceRefused, match="larger than any header"):
        read(bytes(head) + bytes(10_240), tmp_path / "out")


def test_many_large_headers_are_not_kept_in_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(200):
            info = tarfile.TarInfo(f"f{number}")
            info.pax_headers = {"comment": "x" * 2**20}
            archive.addfile(info)
    with pytest.raises(SourceRefused, match="headers are over"):
        read(gzip.compress(buffer.getvalue(), 1), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_limit_on_headers_is_none_on_files(tmp_path: Path) -> None:
    content = {"large": bytes(MAX_HEADER_BYTES + 1)}
    assert read(tarred(content), tmp_path / "out", max_bytes=2 * MAX_HEADER_BYTES) == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 not really",
        b"\x1f\x8b\x08 not really",
        b"x" * 1_000,
        zipped(FILES)[:-30],
        gzipped(FILES)[:-30],
        tarred(FILES)[:1_024],
        gzip.compress(b"hello"),
    ],
    ids=["empty", "like zip", "like gzip", "text", "zip cut", "tar.gz cut", "tar cut", "gzip of no tar"],
)
def test_what_is_damaged_or_no_archive_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceRefused, match="cannot be read"):
        read(content, tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_file_in_a_zip_is_refused_however_it_was_packed(tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a", random.Random(1).randbytes(1_000))
    content = bytearray(buffer.getvalue())
    content[45:65] = bytes(20)
    with pytest.raises(SourceRefused, match="cannot be read"):
        read(bytes(content), tmp_path / "out")


def test_a_size_that_lies_is_not_believed(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": b"long enough to be cut" * 50}))
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = (10).to_bytes(4, "little")
    with pytest.raises(SourceRefused, match="cannot be read"):
        read(bytes(content), tmp_path / "out")


def test_an_entry_without_a_name_is_refused(tmp_path: Path) -> None:
    content = zipped({"a": b"x"})
    for mark, at in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):  # where the lengths of the name are
        place = content.index(mark) + at
        content = content[:place] + bytes(2) + content[place + 2 :]
    with pytest.raises(SourceRefused, match="archive"):
        read(content.replace(b"a", b""), tmp_path / "out")
