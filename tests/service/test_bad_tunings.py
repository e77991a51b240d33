"""Tunings that cannot be done, through HTTP and the real trainer: one sentence says why, and nothing else is hurt."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.client import AdiabatClient, ApiError
from app.passages.disk import copy_tree
from app.settings import Settings
from app.wire.tuning_jobs import TuningJobPublic
from tests.conftest import process, wait_until
from tests.service import encoders
from tests.service.test_tuning_jobs import GENTLE, dataset, passages, question, ready

__all__ = ["dataset"]  # a fixture

pytestmark = pytest.mark.slow

ANY_GATE = {"min_gain": -1, "max_guard_loss": 1}


def lines(splits: dict[str, range], *, text: str = "", score: int = 1) -> bytes:
    """NDJSON: a question about each passage of these numbers, or always the same one."""
    rows = [
        {"query": text or question(n), "id": f"{split}-{n}", "split": split, "relevant": {f"p{n}": score}}
        for split, numbers in splits.items()
        for n in numbers
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def busy(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AdiabatClient, Path]]:
    """A service with its trainer, and a folder whose files it may be sent."""
    folder = tmp_path_factory.mktemp("busy")
    copy_tree(seeded, folder / "data")
    (folder / "sources").mkdir()
    settings = Settings(
        data_dir=folder / "data", passage_encoder=str(tiny), source_dirs=(folder / "sources",), threads=1
    )
    with process(settings) as (_, client):
        client.upsert_passages(passages())
        yield client, folder
        assert {item.name for item in client.encoders()} <= {"base", "foreign", "good"}  # no bad job left one
        assert client.search("water pump").encoder.name == "base"
        name = put(client, folder, "good", lines({"train": range(40), "dev": range(40, 50)}))
        done = client.wait_for_job(client.create_tuning_job("good", name, recipe=GENTLE, gate=ANY_GATE).id)
        assert done.status == "succeeded"  # and the trainer that met them all still works


def put(client: AdiabatClient, folder: Path, name: str, content: bytes) -> str:
    file = folder / f"{name}.jsonl"
    file.write_bytes(content)
    return client.put_dataset(name, file).name


def ended(client: AdiabatClient, dataset: str, recipe: dict[str, Any] | None = None, **fields: Any) -> TuningJobPublic:
    made = client.create_tuning_job("bad", dataset, recipe=GENTLE | (recipe or {}), gate=ANY_GATE, **fields)
    return client.wait_for_job(made.id)


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_a_dataset_without_a_split_that_is_needed_is_refused_at_once(
    busy: tuple[AdiabatClient, Path], missing: str
) -> None:
    client, folder = busy
    splits = {"train": range(40), "dev": range(40, 50)}
    del splits[missing]
    put(client, folder, "halved", lines(splits))
    with pytest.raises(ApiError, match=f"no split '{missing}'") as caught:
        client.create_tuning_job("bad", "halved")
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("content", "recipe", "sentence"),
    [
        (
            lines({"train": range(31), "dev": range(40, 50)}),
            {},
            "has 31 pairs of a query and a stored passage; a tuning",
        ),
        (
            lines({"train": range(60, 100), "dev": range(40, 50)}),
            {},
            r"has 0 pairs .* \(40 more name passages that are not stored\)",
        ),
        (
            lines({"train": range(40)}, text="what is it") + lines({"dev": range(40, 50)}),
            {},
            "Every query of the train split is the same",
        ),
        (
            lines({"train": range(40), "dev": range(70, 80)}),
            {},
            "'dev' has no query in its dev split whose relevant passage is",
        ),
        (lines({"train": range(40)}) + lines({"dev": range(40, 50)}, score=0), {}, "'dev' has no query in its dev"),
        (lines({"train": range(40), "dev": range(40, 41)}), {}, "'dev' cannot be cut into a half to choose by"),
        (lines({"train": range(40), "dev": range(40, 50)}), {"learning_rate": 1e-12}, "learning_rate: at 1e-12 only"),
        (lines({"train": range(40), "dev": range(40, 50)}), {"freeze": ["*"]}, "leave no parameter to tune"),
        (lines({"train": range(40), "dev": range(40, 50)}), {"freeze": ["bias"]}, "'bias' matches no parameter"),
    ],
    ids=[
        "few",
        "none stored",
        "one query",
        "dev gone",
        "dev judged bad",
        "one cluster",
        "no rate",
        "frozen",
        "misspelt",
    ],
)
def test_what_cannot_be_tuned_fails_with_what_mends_it(
    busy: tuple[AdiabatClient, Path], content: bytes, recipe: dict[str, Any], sentence: str
) -> None:
    client, folder = busy
    done = ended(client, put(client, folder, "odd", content), recipe)
    assert (done.status, done.encoder) == ("failed", None)
    assert_says(done, sentence)


def assert_says(done: TuningJobPublic, sentence: str) -> None:
    assert re.search(sentence, done.reason or ""), done.reason


def test_a_guard_without_a_query_that_can_be_measured_fails_by_name(busy: tuple[AdiabatClient, Path]) -> None:
    client, folder = busy
    put(client, folder, "odd", lines({"train": range(40), "dev": range(40, 50)}))
    put(client, folder, "empty", lines({"test": range(80, 90)}))
    done = ended(client, "odd", guards=["empty"])
    assert done.status == "failed"
    assert_says(
        done, r"'empty' has no query in its test split whose relevant passage is there \(10 name a missing passage\)"
    )


def test_a_parent_outside_the_bases_lineage_is_refused(busy: tuple[AdiabatClient, Path], tiny: Path) -> None:
    client, folder = busy
    put(client, folder, "odd", lines({"train": range(40), "dev": range(40, 50)}))
    client.register_encoder("foreign", path=str(encoders.near(tiny, folder / "sources" / "foreign")))
    with pytest.raises(ApiError, match="foreign@1 is not in the base's lineage; start from the base") as caught:
        client.create_tuning_job("bad", "odd", parent="foreign")
    assert caught.value.status == 409


@pytest.mark.nightly
def test_passages_that_are_deleted_after_the_mining_change_nothing(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    with ready(settings, dataset, tmp_path) as (_, client):
        before = client.create_tuning_job("whole", "pumps", recipe=GENTLE | {"epochs": 300}, gate=ANY_GATE)
        assert client.wait_for_job(before.id).status == "succeeded"
        job = client.create_tuning_job("holed", "pumps", recipe=GENTLE | {"epochs": 300}, gate=ANY_GATE)
        wait_until(lambda: client.tuning_job(job.id).progress.get("step", 0) > 0)
        client.delete_passages([f"p{n}" for n in range(60)])
        done = client.wait_for_job(job.id)
        assert done.status == "succeeded", done
        # It is tuned and measured on the passages as they were when it began.
        assert client.encoder("holed").digest == client.encoder("whole").digest
        assert "missing" not in done.result or not done.result["missing"]


@contextmanager
def small(folder: Path, free: str) -> Iterator[Path]:
    """`folder` on a file system of that size."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={free}", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.nightly
def test_a_disk_that_fills_while_it_tunes_interrupts_the_job_which_goes_on_when_there_is_room(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    recipe = GENTLE | {"epochs": 60}
    with small(settings.jobs_dir, "8m") as disk, ready(settings, dataset, tmp_path) as (_, client):
        unbroken = client.create_tuning_job("unbroken", "pumps", recipe=recipe, gate=ANY_GATE)
        assert client.wait_for_job(unbroken.id).status == "succeeded"
        job = client.create_tuning_job("broken", "pumps", recipe=recipe, gate=ANY_GATE)
        wait_until(lambda: client.tuning_job(job.id).progress.get("step", 0) > 0)
        space = os.statvfs(disk)
        (disk / "filler").write_bytes(b"\0" * (space.f_bavail * space.f_frsize))
        done = client.wait_for_job(job.id)
        assert (done.status, done.encoder) == ("interrupted", None)
        assert_says(done, "the disk is full .*; free some space, then resume it")
        sentences = [event.data["message"] for event in client.job_events(job.id) if event.kind == "log"]
        assert any(sentence.startswith("no checkpoint could be written") for sentence in sentences)
        assert client.search("water pump").hits
        assert {item.name for item in client.encoders()} == {"base", "unbroken"}
        (disk / "filler").unlink()
        client.resume_tuning_job(job.id)
        assert client.wait_for_job(job.id).status == "succeeded"
        assert client.encoder("broken").digest == client.encoder("unbroken").digest
