"""The power fails: what was not synced is gone, and everything that was promised to be durable is there."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from app.cli.datasets import zip_folder
from app.passages.edge import EdgeStore
from app.settings import Settings
from tests.conftest import process
from tests.faults import power
from tests.faults.power import Power
from tests.passages.conftest import SPACE
from tests.passages.test_edge import assert_all_there, run_writer_until
from tests.passages.writer import BATCH
from tests.service import encoders

NEVER = 10**9


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("the simulation of a power failure needs a C compiler")
    return power.build(tmp_path_factory.mktemp("power"))


def test_the_simulation_loses_what_was_not_synced_and_keeps_what_was(library: Path, tmp_path: Path) -> None:
    """It must be able to fail what it judges."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "before").write_text("before")
    over = Power(library=library, root=root, shadow=tmp_path / "shadow")
    over.settle()
    program = """
import mmap, os, sys
from app.passages.disk import sync_file, write_whole
from pathlib import Path
root = Path(sys.argv[1])
(root / "before").write_text("changed")
(root / "unsynced").write_text("lost")
(root / "nameless").write_text("content is durable, its name is not")
sync_file(root / "nameless")
write_whole(root / "whole", b"synced, and its folder")
(root / "whole").write_text("changed once more")
(root / "mapped").write_bytes(bytes(8192))
with (root / "mapped").open("r+b") as file:
    mapped = mmap.mmap(file.fileno(), 8192)
sync_file(root / "mapped"); sync_file(root)
mapped[0] = mapped[4096] = 1
mapped.flush(4096, 4096)
(root / "whole").rename(root / "renamed")
"""
    power.run(program, root, over.variables)
    over.lose(tmp_path / "lost")
    found = {path.name: path.read_bytes() for path in (tmp_path / "lost").iterdir()}
    assert found == {
        "before": b"before",
        "unsynced": b"",  # its folder was synced with the name in it, its content never
        "nameless": b"content is durable, its name is not",
        "whole": b"synced, and its folder",
        "mapped": bytes(4096) + b"\1" + bytes(4095),
    }


@pytest.mark.parametrize(
    ("index_after", "log_limit", "batches"),
    [
        pytest.param(NEVER, NEVER, 9, id="in the log"),
        pytest.param(NEVER, 4 * BATCH, 22, id="flushed by Edge"),
        pytest.param(300, 6 * BATCH, 25, id="indexed"),
        *(
            pytest.param(after, limit, count, marks=pytest.mark.nightly)
            for after in (200, 300, 700)
            for limit in (3 * BATCH, NEVER)
            for count in (13, 31, 47)
        ),
    ],
)
def test_every_durable_write_survives_a_power_failure(
    library: Path, tmp_path: Path, index_after: int, log_limit: int, batches: int
) -> None:
    root = tmp_path / "passages"
    root.mkdir()
    over = Power(library=library, root=root, shadow=tmp_path / "shadow")
    over.settle()
    last = run_writer_until(
        root, index_after, lambda start, _: start >= batches * BATCH, str(log_limit), variables=over.variables
    )
    for survivors in (None, random.Random(1), random.Random(2)):
        lost = tmp_path / "lost"
        over.lose(lost, survivors)
        store = EdgeStore(lost, SPACE, index_after=NEVER)
        try:
            assert_all_there(store, last)
            assert store.info().writes >= last // BATCH
        finally:
            store.close()
        shutil.rmtree(lost)


def test_what_a_service_acknowledged_as_durable_is_there_after_a_power_failure(
    library: Path, settings: Settings, tiny: Path, sources: Path, tmp_path: Path
) -> None:
    over = Power(library=library, root=settings.data_dir, shadow=tmp_path / "shadow")
    over.settle()
    dataset = tmp_path / "pumps"
    (dataset / "qrels").mkdir(parents=True)
    (dataset / "queries.jsonl").write_text('{"_id": "q", "text": "pump"}\n')
    (dataset / "qrels" / "test.tsv").write_text("q\tp1\t1\n")
    with process(settings, "--no-trainer", variables=over.variables) as (child, client):
        client.upsert_passages([{"id": f"p{n}", "text": f"water pump {n}"} for n in range(50)], durable=True)
        client.put_dataset("pumps", zip_folder(dataset, tmp_path / "pumps.zip"))
        client.judge("pump", "p1", 3)
        client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees")))
        assert client.activate("bees").encoder.generation == 2
        child.kill()
        child.wait()
    secret = (settings.data_dir / "session.secret").read_text()
    for survivors in (None, random.Random(3)):
        lost = settings.model_copy(update={"data_dir": tmp_path / "lost"})
        over.lose(lost.data_dir, survivors)
        with process(lost, "--no-trainer") as (_, client):
            assert client.ready().notes == []
            assert client.count_passages() == 50
            active = client.active_encoder().encoder
            assert (active.name, active.generation) == ("bees", 2)
            assert client.search("pump 7").encoder.name == "bees"
            assert [each.name for each in client.datasets() if each.name == "pumps"] == ["pumps"]
            assert [each.query for each in client.judgments().judgments] == ["pump"]
        with sqlite3.connect(lost.registry_path) as check:
            assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert (lost.data_dir / "session.secret").read_text() == secret
        shutil.rmtree(lost.data_dir)
