"""`PUT /datasets`: BEIR zips in, good and hostile."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest

from app.client import AdiabatClient
from tests.conftest import Service

QUERIES = (
    '{"_id": "q1", "text": "why", "metadata": {"lang": "en"}}\n'
    '{"_id": "q2", "text": "wie", "metadata": {"lang": "de"}}\n'
)
QRELS = "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq2\tp2\t1\n"
CORPUS = '{"_id": "p1", "text": "because"}\n{"_id": "p2", "text": "so"}\n'


def packed(entries: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def put(service: Service, body: bytes) -> httpx.Response:
    return httpx.put(f"{service.url}/datasets/d", content=body, trust_env=False)


def test_a_dataset_is_kept_with_counts_per_split_and_language(client: AdiabatClient, tmp_path: Path) -> None:
    archive = tmp_path / "d.zip"
    archive.write_bytes(packed({"queries.jsonl": QUERIES, "qrels/train.tsv": QRELS, "corpus.jsonl": CORPUS}))
    made = client.put_dataset("d", archive)
    assert (made.queries, made.passages, made.languages) == (2, 2, {"en": 1, "de": 1})
    assert made.splits == {"train": {"queries": 2, "pairs": 2}}
    assert client.dataset("d") == made
    assert client.datasets() == [made]


def test_a_zipped_folder_is_read_like_its_content(service: Service) -> None:
    assert put(service, packed({"d/queries.jsonl": QUERIES, "d/qrels/dev.tsv": QRELS})).status_code == 200


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"../queries.jsonl": QUERIES, "qrels/dev.tsv": QRELS}, "outside"),
        ({"/queries.jsonl": QUERIES, "qrels/dev.tsv": QRELS}, "outside"),
        ({"a\\..\\..\\queries.jsonl": QUERIES}, "outside"),
        ({"queries.jsonl": QUERIES}, "qrels"),
        ({}, "queries.jsonl"),
        ({"queries.jsonl": "{oops\n", "qrels/dev.tsv": QRELS}, "queries.jsonl line 1"),
        ({"queries.jsonl": QUERIES + '{"_id": "q1", "text": "x"}', "qrels/dev.tsv": QRELS}, "twice"),
        ({"queries.jsonl": '{"_id": "q1", "text": ""}', "qrels/dev.tsv": QRELS}, "no text"),
        ({"queries.jsonl": QUERIES, "qrels/dev.tsv": "q1 p1 1\n"}, "qrels/dev.tsv line 1"),
        ({"queries.jsonl": QUERIES, "qrels/dev.tsv": "q9\tp1\t1\n"}, "no query 'q9'"),
        ({"queries.jsonl": QUERIES, "qrels/dev.tsv": QRELS, "corpus.jsonl": CORPUS[:32]}, "line"),
        ({"queries.jsonl": QUERIES, "qrels/dev.tsv": "q1\tp1\tnan\n"}, "qrels/dev.tsv line 1"),
        ({"queries.jsonl": QUERIES, "qrels/dev.tsv": b"q1\t\xff\t1\n"}, "not UTF-8"),
        ({"queries.jsonl": QUERIES, "qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq1\tp1\tgood\n"}, "line 2"),
    ],
)
def test_a_bad_archive_is_refused_naming_the_place_and_nothing_is_kept(
    service: Service, entries: dict[str, str], word: str
) -> None:
    response = put(service, packed(entries))
    assert (response.status_code, response.json()["type"]) == (422, "urn:adiabat:problem:bad-dataset")
    assert word in response.json()["detail"]
    assert service.client.datasets() == []
    assert list((service.settings.artifacts_dir / "datasets").iterdir()) == []
    assert not list(service.settings.artifacts_dir.glob(".staging-*"))


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04 not really", b"x" * 1000])
def test_what_is_no_zip_is_refused(service: Service, body: bytes) -> None:
    assert put(service, body).status_code == 422


def test_a_bomb_is_refused_before_it_is_unpacked(service: Service) -> None:
    bomb = packed({"queries.jsonl": " " * 50_000_000, "qrels/dev.tsv": QRELS})
    response = put(service, bomb)
    assert (response.status_code, response.json()["type"]) == (413, "urn:adiabat:problem:too-large")


def test_an_entry_with_a_lying_size_is_not_believed(service: Service) -> None:
    body = bytearray(packed({"queries.jsonl": QUERIES * 50, "qrels/dev.tsv": QRELS}))
    central = body.rindex(b"PK\x01\x02", 0, body.rindex(b"PK\x01\x02"))
    body[central + 24 : central + 28] = (10).to_bytes(4, "little")
    assert put(service, bytes(body)).status_code == 422


def test_names_are_checked(service: Service) -> None:
    good = packed({"queries.jsonl": QUERIES, "qrels/dev.tsv": QRELS})
    response = httpx.put(f"{service.url}/datasets/..%2Fx", content=good, trust_env=False)
    assert response.status_code in (404, 422)
    response = httpx.put(f"{service.url}/datasets/Upper", content=good, trust_env=False)
    assert response.status_code == 422


def test_a_job_is_refused_before_it_starts_when_a_split_is_missing(
    service: Service, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    archive = tmp_path / "d.zip"
    archive.write_bytes(packed({"queries.jsonl": QUERIES, "qrels/train.tsv": QRELS}))
    service.client.put_dataset("d", archive)
    assert "no split 'dev'" in refuse("bees", "d", 422)
    archive.write_bytes(packed({"queries.jsonl": QUERIES, "qrels/train.tsv": QRELS, "qrels/dev.tsv": QRELS}))
    service.client.put_dataset("d", archive)
    assert "no split 'test'" in refuse("bees", "d", 422, guards=["d"])
    assert "No dataset is named 'x'" in refuse("bees", "d", 404, guards=["x:dev"])
    assert "learning_rate" in refuse("bees", "d", 422, recipe={"learning_rate": -1})
    assert "speed" in refuse("bees", "d", 422, recipe={"speed": 3})
    assert "base" in refuse("base", "d", 422)
    assert service.client.tuning_jobs() == []


@pytest.fixture
def refuse(service: Service) -> Callable[..., str]:
    def attempt(name: str, dataset: str, status: int, **fields: object) -> str:
        body = {"name": name, "dataset": dataset, **fields}
        response = httpx.post(f"{service.url}/tuning-jobs", json=body, trust_env=False)
        assert response.status_code == status
        return str(response.json()["detail"])

    return attempt
