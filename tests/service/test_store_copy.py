"""`adiabat store copy`: from Qdrant Edge in a data folder to a server, and the service goes on there."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

from app.settings import Settings
from tests.conftest import environment, running

COUNT = 600  # more than two pages


def copy(settings: Settings, *options: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "app.cli", "store", "copy", *options]
    ended = subprocess.run(
        command, env=os.environ | environment(settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr if code else ended.stdout


def test_passages_are_found_alike_on_the_server_with_nothing_embedded_again(
    settings: Settings, qdrant: str, tmp_path: Path
) -> None:
    at_server = settings.model_copy(update={"collection": f"adiabat_test_{uuid.uuid4().hex[:12]}"})
    given = [{"id": f"p{n}", "text": f"water pump {n}", "metadata": {"lang": "en", "n": n}} for n in range(COUNT)]
    with running(settings) as service:
        service.client.upsert_passages(given[:256])
        service.client.upsert_passages(given[256:512])
        service.client.upsert_passages(given[512:])
        before = service.client.search(
            "the pump of water 7", limit=20, filter={"must": [{"key": "n", "range": {"lt": 300}}]}
        )
        assert "is in use by" in copy(at_server, "--to", qdrant, code=1)
    for _ in range(2):  # one that broke may be repeated
        assert f"copied {COUNT} passages; the collection" in copy(at_server, "--from", "edge", "--to", qdrant)
    with running(at_server.model_copy(update={"qdrant_url": qdrant})) as service:
        client = service.client
        after = client.search("the pump of water 7", limit=20, filter={"must": [{"key": "n", "range": {"lt": 300}}]})
        assert {hit.id: round(hit.score, 4) for hit in after.hits} == {
            hit.id: round(hit.score, 4) for hit in before.hits
        }
        assert client.count_passages() == COUNT
        assert (client.passage("p599").text, client.passage("p599").metadata) == (
            "water pump 599",
            given[599]["metadata"],
        )
        unchanged = client.upsert_passages(given[:10])
        assert unchanged.embedded == 0
    nowhere = settings.model_copy(update={"data_dir": tmp_path / "nowhere"})
    assert "--data-dir" in copy(nowhere, "--to", qdrant, code=1)
    assert "only 'edge'" in copy(settings, "--from", "qdrant", "--to", qdrant, code=1)
