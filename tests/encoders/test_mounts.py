"""Which folders are on file systems of this machine alone, as the kernel lists them."""

from pathlib import Path

import pytest

from app.encoders import mounts


@pytest.mark.parametrize(
    ("place", "own"),
    [
        ("", True),
        ("far away", False),
        ("far away/weights", False),
        ("far away2", True),
        ("far away/near/weights", True),
        ("twice", True),
        ("unheard of", False),
    ],
)
def test_a_folder_is_this_machines_own_where_the_file_system_mounted_last_above_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, own: bool
) -> None:
    table = f"""\
/dev/vda / ext4 rw 0 0
server:/export {tmp_path}/far\\040away nfs4 rw,vers=4.2 0 0
/dev/vdb {tmp_path}/far\\040away/near xfs rw 0 0
//server/share {tmp_path}/twice cifs rw 0 0
tmpfs {tmp_path}/twice tmpfs rw 0 0
x {tmp_path}/unheard\\040of fuse.newest rw 0 0
"""
    (tmp_path / "mounts").write_text(table)
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    assert mounts.is_own(tmp_path / place) is own


def test_where_nobody_lists_file_systems_none_is_taken_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert not mounts.is_own(tmp_path)
