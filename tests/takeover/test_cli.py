"""`adiabat import …` and `adiabat export passages`, as their own processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet as pq
from qdrant_client import QdrantClient

from app.errors import BadInput, NotFound, Unavailable
from app.settings import Settings
from app.takeover.qdrant import QdrantSource, open_client
from tests.conftest import environment, running
from tests.service.hub import COMMIT, repository, running_hub
from tests.takeover.conftest import encode, fill, text_of

COUNT = 120
PROMPT = "passage: "


def adiabat(settings: Settings, *arguments: str, code: int = 0) -> str:
    """Standard output; where it failed as expected, standard error."""
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr if code else ended.stdout


@pytest.fixture(scope="session")
def passages() -> list[dict[str, Any]]:
    return [{"doc": f"d{n}", "text": text_of(n), "lang": "de" if n % 2 else "en"} for n in range(COUNT)]


@pytest.fixture(scope="session")
def vectors(tiny: Path, passages: list[dict[str, Any]]) -> Any:
    return encode(tiny, [passage["text"] for passage in passages], PROMPT)


def test_a_collection_on_a_server_becomes_a_new_data_folder(
    settings: Settings, qdrant: str, tmp_path: Path, passages: list[dict[str, Any]], vectors: Any
) -> None:
    server = QdrantClient(url=qdrant, check_compatibility=False)
    name = fill(server, vectors, passages)
    new = settings.model_copy(update={"data_dir": tmp_path / "taken"})
    said = adiabat(new, "import", "qdrant", "--from", qdrant, "--collection", name, "--id-field", "doc")
    assert f"{COUNT} of {COUNT} sampled passages have the vector that {settings.passage_encoder} gives" in said
    assert f"{COUNT} passages taken over, 0 were there, 0 bad points; the store holds {COUNT}" in said
    with running(new) as service:
        german = {"must": [{"key": "lang", "match": {"value": "de"}}]}
        found = service.client.search("water", limit=COUNT, filter=german)
        assert len(found.hits) == COUNT // 2
        assert service.client.passage("d7").metadata == {"lang": "de"}
    with pytest.raises(NotFound, match=name):
        QdrantSource(server, "nobody")
    server.close()
    with pytest.raises(Unavailable, match="does not answer"):
        QdrantSource(open_client("http://127.0.0.1:9"), name)


def test_a_folder_of_qdrant_client_and_what_is_none(
    settings: Settings, tmp_path: Path, passages: list[dict[str, Any]], vectors: Any
) -> None:
    folder = str(tmp_path / "theirs")
    theirs = QdrantClient(path=folder)
    spoilt = [*passages[:-1], {"doc": "d119"}]
    asked = ("import", "qdrant", "--from", folder, "--collection", fill(theirs, vectors, spoilt))
    assert "open in another process" in adiabat(settings, *asked, code=1)
    theirs.close()
    with pytest.raises(BadInput, match="a folder that QdrantClient"):
        open_client(str(tmp_path))
    tried = adiabat(settings, *asked, "--dry-run")
    assert f"nothing was written (--dry-run); {COUNT} points would be copied" in tried
    said = adiabat(settings, *asked, code=1)
    assert "point 119 has no text in 'text'. Mend it there, or leave such points out (--skip-bad)." in said
    done = json.loads(adiabat(settings, *asked, "--skip-bad", "--json"))
    assert (done["written"], done["bad"], done["there"]) == (119, 1, 119)
    assert (done["sample"]["equal"], done["dry_run"]) == (119, False)


def test_passages_are_exported_with_their_vectors_and_taken_over_elsewhere(settings: Settings, tmp_path: Path) -> None:
    given = [
        {"id": f"p{n}", "title": f"t{n}" * (n % 2), "text": text_of(n), "metadata": {"lang": "en", "deep": {"n": n}}}
        for n in range(COUNT)
    ]
    file = tmp_path / "out.parquet"
    other = settings.model_copy(update={"data_dir": tmp_path / "other"})
    subprocess.run(["cp", "-r", str(settings.data_dir), str(other.data_dir)], check=True)
    with running(settings) as service:
        service.client.upsert_passages(given)
        adiabat(settings, "export", "passages", str(file), "--url", service.url)
        adiabat(settings, "export", "encoder", "base", str(tmp_path / "base"), "--url", service.url)
        stored = service.parts.store.fetch(["p7"], with_vectors=True)[0].vector
        digest = service.client.encoder("base@1").digest
    assert np.array_equal(encode(tmp_path / "base", ["water"]), encode(Path(settings.passage_encoder), ["water"]))
    table = pq.read_table(file)
    assert json.loads(table.schema.metadata[b"adiabat"]) == {"passage_encoder": digest}
    assert table.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 32)
    row = next(row for row in table.to_pylist() if row["id"] == "p7")
    assert np.array_equal(np.float32(row["vector"]), stored)
    assert (row["title"], json.loads(row["metadata"])) == ("t7", {"lang": "en", "deep": {"n": 7}})
    asked = ("import", "parquet", str(file), "--title-field", "title", "--metadata-field", "metadata")
    assert f"{COUNT} passages taken over" in adiabat(other, *asked)
    with running(other) as service:
        done = service.client.upsert_passages(given)
        assert (done.embedded, done.metadata_updated) == (0, 0)


@pytest.mark.nightly
def test_a_takeover_that_was_killed_goes_on(
    settings: Settings, tmp_path: Path, passages: list[dict[str, Any]], vectors: Any
) -> None:
    file, times = str(tmp_path / "many.parquet"), 200
    rows = [
        {"id": f"{passage['doc']}-{again}", "text": passage["text"], "vector": vector.tolist()}
        for again in range(times)
        for passage, vector in zip(passages, vectors, strict=True)
    ]
    pq.write_table(pyarrow.Table.from_pylist(rows), file)
    command = [sys.executable, "-m", "app.cli", "import", "parquet", file]
    child = subprocess.Popen(command, env=os.environ | environment(settings), stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if re.match(r"taking over [1-9]\d{3}", line):
            break
    child.kill()
    child.communicate()
    done = json.loads(adiabat(settings, "import", "parquet", file, "--json"))
    assert min(done["unchanged"], done["written"]) > 0
    assert (done["written"] + done["unchanged"], done["there"]) == (COUNT * times, COUNT * times)


def test_parquet_with_vectors_on_the_hub(
    settings: Settings,
    tmp_path: Path,
    passages: list[dict[str, Any]],
    vectors: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{**passage, "emb": vector.tolist()} for passage, vector in zip(passages, vectors, strict=True)]
    files = {"en/0.parquet": rows[:70], "en/1.parquet": rows[70:], "de/0.parquet": rows[:9], "load.py": "exit()"}
    asked = ("import", "hub", "someone/docs", "--files", "en/*.parquet", "--vector-field", "emb", "--id-field", "doc")
    with running_hub({"datasets/someone/docs": repository(tmp_path / "r", files)}, tmp_path / "cache", monkeypatch) as (
        _,
        fetched,
    ):
        said = adiabat(settings, *asked)
        assert f"someone/docs@{COMMIT[:8]}: {COUNT} points" in said
        assert f"{COUNT} passages taken over" in said
        assert set(fetched) == {"en/0.parquet", "en/1.parquet"}
        assert "matches 'fr/*'" in adiabat(settings, *asked[:4], "fr/*", code=1)
