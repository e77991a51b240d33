"""A backup of a service that has something of everything, and what it answered."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli.datasets import zip_folder
from app.client import AdiabatClient
from app.passages.disk import copy_tree
from app.registry import JobStatus, Registry
from app.settings import Settings
from tests.conftest import environment, process, wait_until
from tests.service import encoders
from tests.service.test_errors import write_dataset

PASSAGES = 300
QUERIES = ["water pump 7", "wie funktioniert die pumpe", "a pump for the garden", "pump 299"]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A backup, the settings of the service it was taken of, and what that answered."""

    file: Path
    settings: Settings
    answers: dict[str, Any]


def adiabat(settings: Settings, *words: str, code: int = 0, program: tuple[str, ...] = ("-m", "app.cli")) -> str:
    """What the command says: on standard error where it is to fail."""
    ended = subprocess.run(
        [sys.executable, *program, *words],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr if code > 0 else ended.stdout


def fill(client: AdiabatClient, settings: Settings, tiny: Path) -> None:
    client.upsert_passages(
        [{"id": f"p{n}", "text": f"water pump {n}", "metadata": {"n": n, "lang": "en"}} for n in range(PASSAGES)]
    )
    client.delete_passages(["p11"])
    folder = settings.source_dirs[0]
    for seed, name in ((1, "bees"), (2, "wasps")):
        client.register_encoder(name, path=str(encoders.near(tiny, folder / name, seed=seed)))
        client.activate(name)
    client.rollback()
    write_dataset(folder / "pumps")
    client.put_dataset("pumps", zip_folder(folder / "pumps", folder / "pumps.zip"))
    client.judge("which pump is 7", "p7", 3)
    client.create_tuning_job("tuned", "pumps")


def answers(client: AdiabatClient) -> dict[str, Any]:
    found = [client.search(query, limit=20) for query in QUERIES]
    return {
        "hits": [[(hit.id, hit.score, hit.text, hit.metadata) for hit in each.hits] for each in found],
        "encoder": found[0].encoder,
        "other": [(hit.id, hit.score) for hit in client.search(QUERIES[0], encoder="wasps").hits],
        "history": client.history(),
        "active": client.active_encoder().encoder,
        "encoders": [(each.name, each.digest, each.state) for each in client.encoders()],
        "count": client.count_passages(),
        "dataset": client.dataset("pumps").digest,
        "judgments": client.dataset("judgments").digest,
        "audited": [entry.action for entry in client.audit(limit=1000).entries if entry.action != "backed-up"],
    }


def save(seeded: Path, tiny: Path, folder: Path) -> Saved:
    """A service as a process of its own, filled, asked and backed up by the command line."""
    copy_tree(seeded, folder / "data")
    (folder / "sources").mkdir()
    settings = Settings(
        data_dir=folder / "data", passage_encoder=str(tiny), source_dirs=(folder / "sources",), trainer=False
    )
    file = folder / "backup.tar"
    with process(settings, "--no-trainer") as (_, client):
        fill(client, settings, tiny)
        registry = Registry(settings.registry_path)
        wait_until(lambda: bool(registry.jobs.with_status(JobStatus.PREPARED)))
        registry.close()
        before = answers(client)
        said = adiabat(settings, "backup", str(file), "--url", client.url)
        assert f"{PASSAGES - 1} passages, 3 encoders, bees@1 active as generation 4" in said
        assert [entry.target for entry in client.audit(action="backed-up").entries] == ["everything"]
        assert list(settings.artifacts_dir.glob(".staging-*")) == []
    return Saved(file=file, settings=settings, answers=before)
