"""The disk is full, on a real file system that is: whatever writes says so, nothing is lost, and space is all it needs.

A checkpoint then: `tests/trainer/test_checkpoints.py`; a job's training set: `tests/service/test_job_keeping.py`; an
encoder alone: `tests/service/test_full_disk.py`.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.cli.datasets import zip_folder
from app.client import AdiabatClient, ApiError
from app.passages.disk import MIN_FREE_BYTES, allocated_bytes, copy_tree
from app.settings import Settings
from tests.conftest import process
from tests.service import encoders
from tests.service.test_process import start_and_fail


@pytest.fixture
def small_disk(settings: Settings) -> Iterator[Path]:
    """The data folder on a tmpfs that has space for some more than it holds."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = settings.data_dir
    kept = folder.rename(folder.with_name("kept"))
    folder.mkdir()
    size = allocated_bytes(kept) + 3 * MIN_FREE_BYTES
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    for entry in kept.iterdir():
        if entry.is_dir():
            copy_tree(entry, folder / entry.name)
        else:
            (folder / entry.name).write_bytes(entry.read_bytes())
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, but_bytes: int = 0) -> Path:
    filler = disk / "filler"
    space = os.statvfs(disk)
    with filler.open("ab") as file:
        left = space.f_bavail * space.f_frsize - but_bytes
        while left > 0:
            try:
                left -= file.write(bytes(min(left, 2**20)))
                file.flush()
            except OSError:
                break
    return filler


def assert_refused(change: Callable[[], object], match: str) -> None:
    with pytest.raises(ApiError, match=match) as refused:
        change()
    assert (refused.value.status, refused.value.slug) == (503, "unavailable")
    assert refused.value.retry_after_s


def batch(client: AdiabatClient, start: int, count: int = 20) -> None:
    client.upsert_passages([{"id": f"p{n}", "text": f"water pump {n}"} for n in range(start, start + count)])


def test_a_full_disk_refuses_every_write_in_words_and_loses_nothing(
    settings: Settings, small_disk: Path, tiny: Path, sources: Path, tmp_path: Path
) -> None:
    folders = {name: encoders.near(tiny, sources / name, seed=seed) for seed, name in enumerate(("bees", "wasps"), 1)}
    dataset = tmp_path / "pumps"
    (dataset / "qrels").mkdir(parents=True)
    (dataset / "queries.jsonl").write_text('{"_id": "q", "text": "pump"}\n')
    (dataset / "qrels" / "test.tsv").write_text("q\tp1\t1\n")
    archive = zip_folder(dataset, tmp_path / "pumps.zip")
    with process(settings, "--no-trainer") as (child, client):
        batch(client, 0)
        client.register_encoder("bees", path=str(folders["bees"]))
        client.activate("bees")
        filler = fill(small_disk, but_bytes=MIN_FREE_BYTES // 4)
        # Edge writes through maps, which a full disk ends the process for: it is refused before.
        assert_refused(lambda: batch(client, 20), "Free some space and try again")
        assert_refused(lambda: client.delete_passages(["p0"]), "Free some space and try again")
        client.rollback()  # for the registry there is still enough
        filler = fill(small_disk)
        changes = {
            "publish": lambda: client.register_encoder("wasps", path=str(folders["wasps"])),
            "dataset": lambda: client.put_dataset("pumps", archive),
            # What the registry has on disk already takes some more.
            "switch": lambda: [client.activate(name) for _ in range(2_000) for name in ("bees", "base")],
            "judge": lambda: [client.judge(f"pump {n} {'x' * 4_000}", "p1", 3) for n in range(2_000)],
        }
        for change in changes.values():
            assert_refused(change, r"disk|space")
        assert child.poll() is None
        assert client.search("pump 7").hits[0].id.startswith("p")
        assert client.ready().status == "ready"
        generation = client.active_encoder().encoder.generation
        filler.unlink()
        batch(client, 20)
        client.delete_passages(["p0"])
        assert client.register_encoder("wasps", path=str(folders["wasps"])).version == 1
        client.put_dataset("pumps", archive)
        assert client.activate("wasps").encoder.generation == generation + 1
        fill(small_disk)
        child.kill()
        child.wait()
    assert "Free some space and try again" in start_and_fail(settings)
    (small_disk / "filler").unlink()
    with process(settings, "--no-trainer") as (_, client):
        assert client.count_passages() == 39
        assert client.active_encoder().encoder.name == "wasps"
        assert client.search("pump 7").encoder.name == "wasps"
        batch(client, 40)
        assert client.count_passages() == 59
