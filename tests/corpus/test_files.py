"""Reading passages from JSONL, CSV and Parquet: the same passage from each, and every bad line by its place."""

import datetime as dt
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.corpus import BadLine, Format, count, read_files
from app.errors import BadInput

PASSAGE = {"id": "a", "title": "pump", "text": "the pump, leaking", "metadata": {"lang": "en"}}


def read(path: Path, format: Format | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    bad: list[str] = []
    found = [line.passage for line in read_files([str(path)], lambda line: bad.append(line.detail), format)]
    return found, [said.removeprefix(f"{path} ") for said in bad]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "corpus.csv"


def test_the_same_passage_comes_from_every_format(tmp_path: Path) -> None:
    jsonl, csv, parquet = (tmp_path / f"corpus.{suffix}" for suffix in ("jsonl", "csv", "parquet"))
    jsonl.write_text('{"_id": "a", "title": "pump", "text": "the pump, leaking", "metadata": {"lang": "en"}}\n')
    csv.write_text('id,title,text,lang\na,pump,"the pump, leaking",en\n')
    pq.write_table(
        pa.table({"_id": ["a"], "title": ["pump"], "text": ["the pump, leaking"], "metadata.lang": ["en"]}), parquet
    )
    for path in (jsonl, csv, parquet):
        assert read(path) == ([PASSAGE], []), path
        assert count([str(path)]) == 1, path


def test_the_suffix_says_the_format_unless_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "export.txt"
    path.write_text("id,text\na,t\n")
    assert [said[:19] for said in read(path)[1]] == ["line 1: is not JSON", "line 2: is not JSON"]
    assert [passage["id"] for passage in read(path, Format.CSV)[0]] == ["a"]
    upper = path.rename(tmp_path / "EXPORT.CSV")
    assert [passage["id"] for passage in read(upper)[0]] == ["a"]


def test_what_looks_like_no_passage_names_the_formats_that_are_known(file: Path) -> None:
    file.write_text("query-id\tcorpus-id\tscore\n[1, 2]\n")
    for said in read(file, Format.JSONL)[1]:
        assert "a line is an object" in said
        assert "--format" in said


def test_columns_of_a_csv_become_metadata_and_empty_cells_are_left_out(file: Path) -> None:
    file.write_text(
        '\ufeff_id, text ,metadata.lang,year,metadata\na,t,en,2020,"{""tags"": [""x"", 1], ""year"": 1999}"\nb,u,,,\n'
    )
    found, bad = read(file)
    assert bad == []
    assert found[0]["metadata"] == {"tags": ["x", 1], "year": "2020", "lang": "en"}
    assert found[1] == {"id": "b", "title": "", "text": "u", "metadata": {}}


def test_bad_rows_of_a_csv_are_told_by_the_line_they_begin_on(file: Path) -> None:
    file.write_bytes(
        b'id,text,metadata\na,"two\nlines",\n\nb,t\n,t,\nc,,\nd,t,[1]\ne,t,{\nf,"t"x,\ng,\xff,\nh,fine,\ni,"open,\n'
    )
    found, bad = read(file)
    assert [passage["id"] for passage in found] == ["a", "h"]
    expected = (
        "line 5: has 2 cells, the header row has 3",
        "line 6: has no '_id' or 'id'",
        "line 7: the passage 'c' has no text",
        "line 8: the column 'metadata' holds no JSON object",
        "line 9: is not JSON",
        "line 10: is not CSV",
        "line 11: is not valid UTF-8",
        "line 13: is not CSV (unexpected end of data)",
    )
    assert len(bad) == len(expected)
    for said, begins in zip(bad, expected, strict=True):
        assert said.startswith(begins), said


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ("", "it has none"),
        ("id;text", "Separate the columns by commas"),
        ("id,body", "needs the columns"),
        ("text,lang", "needs the columns"),
        ("id,text,lang,metadata.lang", "the column 'lang' twice"),
        ("id,text,text", "the column 'text' twice"),
        ("id,text,", "without a name"),
        ('"id,text', "is not CSV"),
    ],
)
def test_a_header_that_names_no_passages_is_refused(file: Path, header: str, word: str) -> None:
    file.write_text(f"{header}\n")
    with pytest.raises(BadInput, match=word):
        read(file)


def test_parquet_keeps_its_types_and_leaves_out_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    rows = {
        "id": [7, 8],
        "text": ["t", "u"],
        "year": pa.array([2020, None], pa.int32()),
        "score": [0.5, float("nan")],
        "price": [Decimal("9.90"), None],
        "when": [dt.datetime(2026, 1, 2, tzinfo=dt.UTC), None],
        "tags": [["x", "y"], []],
        "metadata": [{"lang": "en", "topic": None}, None],
    }
    pq.write_table(pa.table(rows), path)
    found, bad = read(path)
    assert bad == []
    assert found[0] == {
        "id": "7",
        "title": "",
        "text": "t",
        "metadata": {
            "lang": "en",
            "year": 2020,
            "score": 0.5,
            "price": 9.9,
            "when": "2026-01-02T00:00:00+00:00",
            "tags": ["x", "y"],
        },
    }
    assert found[1]["metadata"] == {"tags": []}


def test_what_parquet_holds_and_json_cannot_is_told_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["t", "u"], "raw": [None, b"\0"]}), path)
    found, bad = read(path)
    assert [passage["id"] for passage in found] == ["a"]
    assert bad[0].startswith("row 2: the passage 'b' has what JSON cannot hold")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.parquet", tmp_path / "empty.parquet"
    broken.write_bytes(b"PAR1 not really")
    pq.write_table(pa.table({"title": ["x"]}), empty)
    for path, word in (
        (broken, "cannot be read as Parquet"),
        (empty, "needs the columns"),
        (tmp_path / "gone.parquet", "cannot be read"),
        (tmp_path / "gone.csv", "No such file"),
        (tmp_path, rf"is a folder; give a file in it, such as {tmp_path}/"),
    ):
        with pytest.raises(BadInput, match=word) as caught:
            read(path)
        assert str(path) in caught.value.detail
    with pytest.raises(BadInput, match=r"s3://bucket/corpus\.jsonl is not read from here; fetch it"):
        next(read_files(["s3://bucket/corpus.jsonl"], _refuse))
    with pytest.raises(BadInput, match="not from a pipe"):
        next(read_files(["-"], _refuse, Format.PARQUET))


def test_a_pipe_is_not_counted_and_so_not_used_up(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert count([str(pipe)]) is None
    assert count(["-"]) is None


def _refuse(line: BadLine) -> None:
    raise line
