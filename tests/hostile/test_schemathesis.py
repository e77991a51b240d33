"""Every call under what Schemathesis makes of its description: no 5xx, and every answer as described.

The long form: docs/operations.md.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.datasets import zip_folder
from app.passages.disk import copy_tree
from app.settings import Settings
from tests.conftest import Service, running
from tests.service import encoders

ROOT = Path(__file__).resolve().parents[2]
KEY = "correct horse battery"


@pytest.fixture(scope="module")
def served(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With something of every kind in it, so that calls reach more than `not found`."""
    folder = tmp_path_factory.mktemp("schemathesis")
    copy_tree(seeded, folder / "data")
    settings = Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        trainer=False,
        source_dirs=(folder,),
        threads=1,
        api_key=KEY,
    )
    with running(settings) as service:
        service.client.upsert_passages([{"id": f"p{n}", "text": f"water pump {n}"} for n in range(20)])
        service.client.register_encoder("bees", path=str(encoders.near(tiny, folder / "bees")))
        samples = ROOT / "samples"
        service.client.put_dataset("beekeeping", zip_folder(samples, folder / "bees.zip", corpus=False))
        yield service


@pytest.mark.parametrize("budget_s", [15, pytest.param(180, marks=pytest.mark.nightly)])
def test_no_call_ends_in_a_5xx_and_every_answer_is_as_described(served: Service, tmp_path: Path, budget_s: int) -> None:
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "bench" / "schemathesis.toml")]
    options = ["--max-time", str(budget_s), "--max-examples", "20", "--seed", "1", "--no-color"]
    ended = subprocess.run(
        [*program, "run", f"{served.url}/openapi.json", *options, "-H", f"Authorization: Bearer {KEY}"],
        cwd=tmp_path,  # it keeps notes where it runs
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8_000:] + ended.stderr[-2_000:]
    calls = sum(len(item) for item in httpx.get(f"{served.url}/openapi.json", trust_env=False).json()["paths"].values())
    assert f"{calls} selected / {calls} total" in ended.stdout
    assert served.client.search("water").encoder.generation >= 1
