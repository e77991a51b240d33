"""A full disk in the middle of a publish, on a real file system that is full."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import ApiError
from app.settings import Settings
from tests.conftest import running
from tests.service import encoders


@pytest.fixture
def small_disk(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """The artifacts on a tmpfs with a few kB left."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    artifacts, kept = settings.artifacts_dir, tmp_path / "kept"
    shutil.move(artifacts, kept)
    artifacts.mkdir()
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in kept.rglob("*") if path.is_file())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={used + 300_000}", "tmpfs", str(artifacts)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    shutil.copytree(kept, artifacts, dirs_exist_ok=True)
    yield artifacts
    subprocess.run(["umount", "--lazy", str(artifacts)], check=True)


def test_a_full_disk_refuses_a_publish_and_leaves_nothing_behind(
    settings: Settings, small_disk: Path, tiny: Path, sources: Path
) -> None:
    folder = encoders.near(tiny, sources / "bees")
    with running(settings) as service:
        filler = small_disk / "filler"
        space = os.statvfs(small_disk)
        filler.write_bytes(b"\0" * (space.f_bavail * space.f_frsize - 16_384))
        with pytest.raises(ApiError) as caught:
            service.client.register_encoder("bees", path=str(folder))
        assert (caught.value.status, caught.value.slug) == (503, "unavailable")
        assert "No space left" in caught.value.detail
        assert sorted(path.name for path in small_disk.iterdir() if "@" in path.name or "staging" in path.name) == [
            "base@1"
        ]
        assert [item.name for item in service.client.encoders()] == ["base"]
        assert service.client.search("water").encoder.name == "base"
        filler.unlink()
        assert service.client.register_encoder("bees", path=str(folder)).version == 1
