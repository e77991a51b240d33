"""`PUT /datasets/{name}` with a name on the hub: which files count, what is never fetched, and what is refused."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.client import ApiError
from app.errors import BadDataset, TooLarge
from app.hub_datasets import HubDataset, fetch
from app.settings import Settings
from tests.conftest import Service, environment, process
from tests.service.hub import COMMIT, Content, repository, running_hub
from tests.service.test_datasets import CORPUS, QRELS, QUERIES, contents, packed, put

NAME, JUDGED = "someone/bees", "someone/bees-qrels"
MAX_BYTES = 100_000

Fetched = Callable[..., tuple[dict[str, str], list[str]]]


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """What `fetch` makes of a repository with these files, and perhaps a second one with the judgments."""

    def attempt(
        files: Mapping[str, Content], judged: Mapping[str, Content] | None = None, **wanted: Any
    ) -> tuple[dict[str, str], list[str]]:
        folder = tmp_path / "fetched"
        folder.mkdir()
        repositories = {f"datasets/{NAME}": repository(tmp_path / "repository", files)}
        if judged is not None:
            repositories[f"datasets/{JUDGED}"] = repository(tmp_path / "judged", judged)
            wanted["qrels"] = JUDGED
        with running_hub(repositories, tmp_path / "hub-cache", monkeypatch) as (_, asked):
            fetch(HubDataset(name=NAME, **wanted), folder, max_bytes=MAX_BYTES)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_text() for path in found}, asked

    return attempt


SHAPE = {"queries.jsonl": QUERIES, "corpus.jsonl": CORPUS, "qrels/train.tsv": QRELS}


def test_a_repository_in_beir_shape_is_taken_as_an_archive_of_it_would_be(fetched: Fetched) -> None:
    found, asked = fetched(SHAPE | {"bees.py": "raise SystemExit", "model.pkl": b"a pickle", "README.md": "bees"})
    assert found == SHAPE
    assert set(asked) == set(SHAPE)


def test_packed_lines_and_judgments_of_a_second_repository(fetched: Fetched) -> None:
    files = {"queries.jsonl.gz": gzip.compress(QUERIES.encode()), "corpus.jsonl.gz": gzip.compress(CORPUS.encode())}
    judged = {"train.tsv": QRELS, "validation.tsv": QRELS, "README.md": "judged", "bees.py": "raise SystemExit"}
    found, asked = fetched(files, judged)
    assert found == SHAPE | {"qrels/dev.tsv": QRELS}  # what a tuning is chosen by has that name
    assert set(asked) == {"queries.jsonl.gz", "corpus.jsonl.gz", "train.tsv", "validation.tsv"}


def test_tables_are_written_as_lines(fetched: Fetched) -> None:
    queries = [{"_id": "q1", "text": "why", "title": ""}, {"_id": "q2", "text": "wie", "title": ""}]
    corpus = [{"_id": "p1", "title": "so", "text": "because"}, {"_id": "p2", "title": "", "text": "so"}]
    judged = [{"query-id": "q1", "corpus-id": "p1", "score": 1}, {"query-id": "q2", "corpus-id": "p2", "score": 2}]
    found, _ = fetched(
        {
            "queries/queries-00000-of-00001.parquet": queries,
            "corpus/corpus-00000-of-00002.parquet": corpus[:1],
            "corpus/corpus-00001-of-00002.parquet": corpus[1:],
            "default/test-00000-of-00002.parquet": judged[:1],
            "default/test-00001-of-00002.parquet": judged[1:],
        }
    )
    assert [json.loads(line) for line in found["queries.jsonl"].splitlines()] == [
        {"_id": "q1", "text": "why"},
        {"_id": "q2", "text": "wie"},
    ]
    assert [json.loads(line) for line in found["corpus.jsonl"].splitlines()] == [
        {"_id": "p1", "text": "because", "title": "so"},
        {"_id": "p2", "text": "so"},
    ]
    assert found["qrels/test.tsv"] == "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq2\tp2\t2\n"


def test_a_corpus_that_is_not_wanted_is_not_fetched(fetched: Fetched) -> None:
    found, asked = fetched(SHAPE, corpus=False)
    assert "corpus.jsonl" not in found
    assert "corpus.jsonl" not in asked


@pytest.mark.parametrize(
    ("files", "refusal"),
    [
        ({"qrels/train.tsv": QRELS}, "holds none of queries.jsonl, queries.jsonl.gz, queries"),
        ({"queries.jsonl": QUERIES}, "name it as qrels, as in someone/bees-qrels"),
        ({"queries.jsonl.gz": b"\x1f\x8b\x08 not really", "qrels/train.tsv": QRELS}, "queries.jsonl.gz on the hub is"),
        ({"queries.jsonl": QUERIES, "qrels/a b.tsv": QRELS}, "not named as a split is"),
    ],
)
def test_what_has_not_the_shape_is_refused(fetched: Fetched, files: dict[str, Content], refusal: str) -> None:
    with pytest.raises(BadDataset, match=refusal):
        fetched(files)


def test_what_is_too_large_is_refused_before_it_is_fetched_or_while_it_is_unpacked(
    fetched: Fetched, tmp_path: Path
) -> None:
    with pytest.raises(TooLarge, match="ADIABAT_MAX_ARCHIVE_BYTES"):
        fetched(SHAPE | {"corpus.jsonl": " " * MAX_BYTES})
    assert not any((tmp_path / "hub-cache").rglob("*.jsonl"))


def test_a_bomb_is_not_unpacked(fetched: Fetched, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="when it is unpacked"):
        fetched({"queries.jsonl.gz": gzip.compress(b" " * 50_000_000), "qrels/train.tsv": QRELS})
    assert (tmp_path / "fetched" / "queries.jsonl").stat().st_size <= MAX_BYTES


def test_the_service_fetches_keeps_and_says_where_from(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories = {
        f"datasets/{NAME}": repository(tmp_path / "a", {"queries.jsonl": QUERIES, "corpus.jsonl": CORPUS}),
        f"datasets/{JUDGED}": repository(tmp_path / "b", {"train.tsv": QRELS}),
    }
    with (
        running_hub(repositories, tmp_path / "hub-cache", monkeypatch) as (hub, _),
        process(settings, "--no-trainer") as (_, client),
    ):
        made = client.put_dataset("bees", hub=NAME, qrels=JUDGED)
        assert (made.queries, made.passages, list(made.splits)) == (2, 2, ["train"])
        assert made.source == f"hub {NAME}@{COMMIT}, qrels {JUDGED}@{COMMIT}"
        assert client.dataset("bees") == made
        archive = tmp_path / "same.zip"
        archive.write_bytes(packed(SHAPE))
        uploaded = client.put_dataset("uploaded", archive)
        assert (uploaded.digest, uploaded.source) == (made.digest, None)

        said = by_hand(settings, client.url, "datasets", "put", "bees", f"hub:{NAME}@{COMMIT}", "--qrels", JUDGED)
        assert "bees: 2 queries" in said
        without = client.put_dataset("stored", hub=NAME, qrels=JUDGED, corpus=False)
        assert (without.passages, without.unknown_passages and without.unknown_passages.count) == (None, 2)

        for source in ({"hub": "someone/nothing"}, {"hub": NAME, "revision": "v9", "qrels": JUDGED}):
            with pytest.raises(ApiError, match="could not be fetched from the dataset hub") as caught:
                client.put_dataset("bees", **source)
            assert (caught.value.status, caught.value.slug) == (422, "source-refused")
        with pytest.raises(ApiError, match="name it as qrels") as caught:
            client.put_dataset("bees", hub=NAME)
        assert (caught.value.status, caught.value.slug) == (422, "bad-dataset")
        assert client.dataset("bees").digest == made.digest  # what was refused has changed nothing
        hub.shutdown()
        hub.server_close()
        with pytest.raises(ApiError, match="The dataset hub does not answer") as caught:
            client.put_dataset("bees", hub="someone/else")
        assert (caught.value.status, caught.value.slug) == (503, "unavailable")


def by_hand(settings: Settings, url: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "app.cli", *arguments, "--url", url]
    return subprocess.run(command, env=environment(settings), check=True, capture_output=True, text=True).stdout


def test_where_the_hub_is_off_the_setting_is_named_and_archives_are_taken_as_ever(service: Service) -> None:
    with pytest.raises(ApiError, match="ADIABAT_HUB=1") as caught:
        service.client.put_dataset("bees", hub=NAME)
    assert (caught.value.status, caught.value.slug) == (422, "source-refused")
    assert contents(service) == set()
    assert put(service, packed(SHAPE)).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"hub": "../secrets"}, "hub"),
        ({"hub": NAME, "revision": "-x"}, "revision"),
        ({"hub": NAME, "qrels_revision": "main"}, "'qrels_revision' goes with 'qrels'"),
        ({"name": NAME}, "hub"),
    ],
)
def test_what_names_no_dataset_is_422_by_field(unchanged: Service, body: dict[str, str], field: str) -> None:
    with pytest.raises(ApiError, match=field) as caught:
        unchanged.client.put_dataset("bees", **body) if "hub" in body else unchanged.client.put_dataset("bees")
    assert caught.value.status == 422
