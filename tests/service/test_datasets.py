"""`/datasets`: BEIR archives and NDJSON in, good and hostile; what is deleted, and what is kept for whom."""

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AdiabatClient
from tests.conftest import Service, wait_until

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


def put(service: Service, body: bytes, name: str = "d") -> httpx.Response:
    return httpx.put(f"{service.url}/datasets/{name}", content=body, trust_env=False)


def put_lines(service: Service, *lines: dict[str, Any] | str, name: str = "d") -> httpx.Response:
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    headers = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    return httpx.put(f"{service.url}/datasets/{name}", content=body.encode(), headers=headers, trust_env=False)


def read(service: Service, name: str = "d") -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{service.url}/datasets/{name}", trust_env=False).json()
    return found


def delete(service: Service, name: str = "d") -> httpx.Response:
    return httpx.delete(f"{service.url}/datasets/{name}", trust_env=False)


def contents(service: Service) -> set[str]:
    return {folder.name for folder in (service.settings.artifacts_dir / "datasets").iterdir()}


def test_the_name_of_a_content_is_durable_before_its_record_is(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = service.parts.artifacts.datasets
    seen: list[tuple[int, int]] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve() == root.resolve():
            seen.append((len(contents(service)), len(service.parts.registry.datasets.all())))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    assert put(service, packed({"queries.jsonl": QUERIES, "qrels/train.tsv": QRELS})).status_code == 200
    assert seen == [(1, 0)]


def test_a_dataset_is_kept_with_counts_per_split_and_language(client: AdiabatClient, tmp_path: Path) -> None:
    archive = tmp_path / "d.zip"
    dev = "q2\tp2\t1\nq2\tp1\t1\n"
    files = {"queries.jsonl": QUERIES, "qrels/train.tsv": QRELS, "qrels/dev.tsv": dev, "corpus.jsonl": CORPUS}
    archive.write_bytes(packed(files))
    made = client.put_dataset("d", archive)
    assert (made.queries, made.passages, made.languages) == (2, 2, {"en": 1, "de": 1})
    assert {name: split.model_dump() for name, split in made.splits.items()} == {
        "dev": {"queries": 1, "pairs": 2, "languages": {"de": 1}},
        "train": {"queries": 2, "pairs": 2, "languages": {"en": 1, "de": 1}},
    }
    assert client.dataset("d") == made
    assert client.datasets() == [made]


def test_lines_make_the_dataset_that_the_same_archive_makes(service: Service) -> None:
    answer = put_lines(
        service,
        {"query": "why", "id": "q1", "lang": "en", "relevant": ["p1"]},
        "",
        {"query": "wie", "lang": "de", "split": "train", "relevant": {"p2": 1}},
        {"query": "où", "id": "q9", "split": "fr", "relevant": {"p1": 2, "p2": 0.5}},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["splits"] == {
        "fr": {"queries": 1, "pairs": 2, "languages": {}},
        "train": {"queries": 2, "pairs": 2, "languages": {"en": 1, "de": 1}},
    }
    queries = [
        {"_id": "q1", "text": "why", "metadata": {"lang": "en"}},
        {"_id": "q3", "text": "wie", "metadata": {"lang": "de"}},  # its line's number
        {"_id": "q9", "text": "où"},
    ]
    head = "query-id\tcorpus-id\tscore\n"
    same = packed(
        {
            "queries.jsonl": "".join(json.dumps(query, ensure_ascii=False) + "\n" for query in queries),
            "qrels/train.tsv": head + "q1\tp1\t1\nq3\tp2\t1\n",
            "qrels/fr.tsv": head + "q9\tp1\t2\nq9\tp2\t0.5\n",
        }
    )
    assert put(service, same, "same").json()["digest"] == answer.json()["digest"]


def test_lines_with_passages_are_a_dataset_with_its_own_corpus(service: Service) -> None:
    question = {"query": "why", "relevant": ["p1"]}
    made = put_lines(service, question, {"passage": "because", "id": "p1", "title": "so"}).json()
    assert (made["passages"], made["unknown_passages"]) == (1, None)
    refused = put_lines(service, question, {"passage": "because", "id": "p2"})
    assert refused.status_code == 422
    assert "line 1: no line has the passage 'p1'" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{oops", "line 2 is not JSON"),
        ('"text"', "line 2: the line"),
        ({"query": "why"}, "line 2: relevant"),
        ({"query": "why", "relevant": []}, "line 2: relevant"),
        ({"query": "", "relevant": ["p1"]}, "line 2: query"),
        ({"query": "  ", "relevant": ["p1"]}, "has no text"),
        ({"query": "why", "relevant": ["p1"], "colour": "red"}, "line 2: colour"),
        ({"query": "why", "relevant": ["p\t1"]}, "line 2: relevant"),
        ({"query": "why", "relevant": {"p1": "much"}}, "line 2: relevant"),
        ({"query": "why", "relevant": ["p1"], "split": "../x"}, "line 2: split"),
        ({"query": "why", "relevant": ["p1"], "id": "q1"}, "line 2: the query id 'q1' is there twice"),
        ({"query": "why " * 300_000, "relevant": ["p1"]}, "line 2 has over"),
        ({"passage": "x", "id": ""}, "line 2: id"),
    ],
)
def test_a_bad_line_is_refused_by_its_number_and_nothing_is_kept(
    unchanged: Service, line: dict[str, Any] | str, word: str
) -> None:
    response = put_lines(unchanged, {"query": "how", "relevant": ["p1"]}, line)
    assert (response.status_code, response.json()["type"]) == (422, "urn:adiabat:problem:bad-dataset")
    assert word in response.json()["detail"]
    assert contents(unchanged) == set()


def test_lines_without_a_query_are_no_dataset(unchanged: Service) -> None:
    assert "no line with a query" in put_lines(unchanged, "").json()["detail"]
    assert "no line with a query" in put_lines(unchanged, {"passage": "because", "id": "p1"}).json()["detail"]


def test_judged_passages_that_are_not_stored_are_listed_as_the_store_is_now(service: Service) -> None:
    service.client.upsert_passages([{"id": "p1", "text": "water"}])
    lines = [{"query": f"why {n}", "relevant": [f"p{n}", "p1"]} for n in range(300)]
    made = put_lines(service, *lines).json()
    assert made["unknown_passages"]["count"] == 299
    assert made["unknown_passages"]["ids"] == ["p0", *(f"p{n}" for n in range(2, 101))]
    service.client.upsert_passages([{"id": f"p{n}", "text": f"pump {n}"} for n in range(299)])
    assert read(service)["unknown_passages"] == {"count": 1, "ids": ["p299"]}
    service.client.delete_passages(["p7"])
    assert read(service)["unknown_passages"] == {"count": 2, "ids": ["p7", "p299"]}


def test_a_deleted_dataset_is_gone_with_its_content(service: Service) -> None:
    put_lines(service, {"query": "why", "relevant": ["p1"]})
    assert len(contents(service)) == 1
    assert delete(service).status_code == 204
    assert contents(service) == set()
    again = delete(service)
    assert (again.status_code, again.json()["type"]) == (404, "urn:adiabat:problem:dataset-not-found")


def test_content_is_kept_while_another_name_means_it_and_dropped_when_it_is_replaced(service: Service) -> None:
    question = {"query": "why", "relevant": ["p1"]}
    for name in ("d", "twin"):
        put_lines(service, question, name=name)
    first = contents(service)
    put_lines(service, question | {"query": "why not"})
    assert contents(service) > first
    put_lines(service, question | {"query": "why ever"})
    assert len(contents(service)) == 2  # the one between the two is gone
    delete(service, "twin")
    assert not contents(service) & first


def test_a_dataset_in_use_is_not_deleted_and_its_replaced_content_stays_for_the_job(service: Service) -> None:
    def lines(word: str) -> list[dict[str, Any]]:
        return [{"query": word, "split": split, "relevant": ["p1"]} for split in ("train", "dev")]

    put_lines(service, *lines("why"))
    first = contents(service)
    job = service.client.create_tuning_job("bees", "d")
    refused = delete(service)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:adiabat:problem:dataset-in-use")
    assert job.id in refused.json()["detail"]
    put_lines(service, *lines("how"))
    assert contents(service) > first
    service.client.cancel_tuning_job(job.id)
    wait_until(lambda: not contents(service) & first)
    assert delete(service).status_code == 204
    assert contents(service) == set()


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
    unchanged: Service, entries: dict[str, str], word: str
) -> None:
    response = put(unchanged, packed(entries))
    assert (response.status_code, response.json()["type"]) == (422, "urn:adiabat:problem:bad-dataset")
    assert word in response.json()["detail"]
    assert unchanged.client.datasets() == []
    assert contents(unchanged) == set()
    assert not list(unchanged.settings.artifacts_dir.glob(".staging-*"))


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04 not really", b"x" * 1000])
def test_what_is_no_zip_is_refused(unchanged: Service, body: bytes) -> None:
    refused = put(unchanged, body)
    assert refused.status_code == 422
    assert "application/x-ndjson" in refused.json()["detail"]  # lines that were sent without saying so


def test_a_bomb_is_refused_before_it_is_unpacked(unchanged: Service) -> None:
    bomb = packed({"queries.jsonl": " " * 50_000_000, "qrels/dev.tsv": QRELS})
    response = put(unchanged, bomb)
    assert (response.status_code, response.json()["type"]) == (413, "urn:adiabat:problem:too-large")


def test_an_entry_with_a_lying_size_is_not_believed(unchanged: Service) -> None:
    body = bytearray(packed({"queries.jsonl": QUERIES * 50, "qrels/dev.tsv": QRELS}))
    central = body.rindex(b"PK\x01\x02", 0, body.rindex(b"PK\x01\x02"))
    body[central + 24 : central + 28] = (10).to_bytes(4, "little")
    assert put(unchanged, bytes(body)).status_code == 422


def test_names_are_checked(unchanged: Service) -> None:
    good = packed({"queries.jsonl": QUERIES, "qrels/dev.tsv": QRELS})
    response = httpx.put(f"{unchanged.url}/datasets/..%2Fx", content=good, trust_env=False)
    assert response.status_code in (404, 422)
    response = httpx.put(f"{unchanged.url}/datasets/Upper", content=good, trust_env=False)
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
