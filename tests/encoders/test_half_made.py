"""What a process that was killed leaves half written, and what another one is writing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.encoders import half_made as half_made_module
from app.encoders.artifacts import ArtifactStore
from app.encoders.half_made import STALE_S, half_made

WRITING = """
import os, sys
from pathlib import Path
import numpy as np
from app.encoders.graph import map_table

def hanging(descriptor):
    print("written", flush=True)
    sys.stdin.read()

os.fsync = hanging
map_table(np.ones((9, 9), dtype=np.float32), Path(sys.argv[1]))
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_of_embeddings_half_written_a_living_process_keeps_its_own_and_a_killed_one_leaves_nothing(
    store: ArtifactStore,
) -> None:
    command = [sys.executable, "-c", WRITING, str(store.weights / "table-a.bin")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        before = list(store.weights.iterdir())
        assert [path.name for path in before] != []
        store.sweep_half_made()
        assert list(store.weights.iterdir()) == before
        child.kill()
    store.sweep_half_made()
    assert list(store.weights.iterdir()) == []


@pytest.mark.parametrize("place", ["graphs", "weights", "weights/a-b"])
def test_what_is_old_goes_and_what_may_be_in_the_making_stays(store: ArtifactStore, place: str) -> None:
    folder = store.root / place
    folder.mkdir(exist_ok=True)
    ours, theirs, strange = half_made(folder), folder / ".half-else-where-1-abc", folder / ".half-made"
    for path in (ours, theirs, strange):
        path.mkdir()
        (path / "file").touch()
    store.sweep_half_made()
    assert {*folder.iterdir()} == {ours, theirs, strange}
    now = time.time()
    os.utime(ours, (now - 3600, now - 3600))  # of an earlier process with this one's id
    for path in (theirs, strange):
        os.utime(path, (now - STALE_S - 1, now - STALE_S - 1))
    store.sweep_half_made()
    assert list(folder.iterdir()) == []


def test_a_container_of_the_same_name_has_process_ids_of_its_own(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr(half_made_module, "_here", lambda: "same_4026531836")
        there.setattr(os, "getpid", lambda: 999_999_999)  # of nobody in here
        theirs = half_made(store.weights)
    theirs.touch()
    store.sweep_half_made()
    assert theirs.exists()
    assert Path("/proc/self/ns/pid").stat().st_ino == int(half_made(store.weights).name.split("-")[-3].split("_")[-1])
