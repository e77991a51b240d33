import json
from pathlib import Path

import numpy as np
import pytest

from app.errors import BadDataset
from tests.trainer.conftest import write_dataset, write_matrix
from trainer.training_set import read_judged, read_matrix, read_measured, read_training_set

QUERIES = [(f"q{i}", f"question {i}") for i in range(40)]
QRELS = [(f"q{i}", f"p{i % 10}", 1) for i in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_matrix(tmp_path / "matrix", np.eye(10))


def test_queries_point_at_the_rows_of_their_passages(folder: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", QUERIES, [*QRELS, ("q0", "p7", 2)])
    training = read_training_set(folder, dataset)
    assert training.queries.texts[:2] == ("question 0", "question 1")
    assert training.queries.relevant[0].tolist() == [0, 7]
    assert training.queries.pairs == 41
    assert isinstance(training.matrix.vectors, np.memmap)


def test_qrels_whose_passage_is_gone_are_listed_and_their_query_is_not_a_miss(folder: Path, tmp_path: Path) -> None:
    qrels = [("q0", "p1", 1), ("q0", "gone", 1), ("q1", "lost", 1)]
    judged = read_judged(write_dataset(tmp_path / "set", QUERIES, qrels), "train", read_matrix(folder))
    assert judged.missing == (("q0", "gone"), ("q1", "lost"))
    assert judged.ids == ("q0",)
    assert judged.relevant[0].tolist() == [1]


def test_a_judgment_of_zero_is_not_relevance(folder: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", QUERIES, [("q0", "p1", 0), ("q0", "p2", 1)])
    judged = read_judged(dataset, "train", read_matrix(folder))
    assert judged.relevant[0].tolist() == [2]


def test_a_query_of_which_nothing_is_relevant_is_neither_trained_on_nor_measured(folder: Path, tmp_path: Path) -> None:
    qrels = [*((query, passage, 0) for query, passage, _ in QRELS[:3]), *QRELS[3:], ("q1", "gone", 0)]
    dataset = write_dataset(tmp_path / "set", QUERIES, qrels)
    training = read_training_set(folder, dataset)
    assert training.queries.texts[0] == "question 3"
    assert (training.queries.pairs, training.queries.missing) == (37, ())
    nothing = write_dataset(tmp_path / "nothing", QUERIES, [("q1", "p1", 0)], split="dev")
    with pytest.raises(BadDataset, match=r"no query in its dev split whose relevant passage is there \(0 name"):
        read_measured("dev", nothing, training.matrix, split="dev")


def test_queries_of_the_same_text_share_their_positives(folder: Path, tmp_path: Path) -> None:
    queries = [*QUERIES, ("q40", " Question  3")]
    training = read_training_set(folder, write_dataset(tmp_path / "set", queries, [*QRELS, ("q40", "p9", 1)]))
    assert len(training.queries.texts) == 40
    assert training.queries.relevant[3].tolist() == [3, 9]


def test_a_missing_split_is_named_with_those_that_are_there(folder: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", QUERIES, QRELS, split="test")
    with pytest.raises(BadDataset, match=r"no train split.*it has: test"):
        read_training_set(folder, dataset)


def test_too_few_pairs_are_refused_with_the_number(folder: Path, tmp_path: Path) -> None:
    qrels = [*QRELS[:31], ("q35", "gone", 1)]
    with pytest.raises(BadDataset, match=r"has 31 pairs.*\(1 more name passages that are not stored\).*32"):
        read_training_set(folder, write_dataset(tmp_path / "set", QUERIES, qrels))


def test_one_query_over_and_over_is_refused(tmp_path: Path) -> None:
    matrix = write_matrix(tmp_path / "wide", np.eye(40))
    dataset = write_dataset(
        tmp_path / "set", [(f"q{i}", "same") for i in range(40)], [(f"q{i}", f"p{i}", 1) for i in range(40)]
    )
    with pytest.raises(BadDataset, match="Every query of the train split is the same"):
        read_training_set(matrix, dataset)


def test_a_guard_without_a_measurable_query_is_refused(folder: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "german", QUERIES, [("q0", "gone", 1)], split="test")
    with pytest.raises(BadDataset, match=r"set 'german' has no query.*\(1 name a missing passage\)"):
        read_measured("german", dataset, read_matrix(folder), split="test")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{not json", r"line 2 is not JSON"),
        ('["q1"]', r"line 2 must be an object"),
        ('{"_id": "q1"}', r"line 2 must be an object"),
    ],
)
def test_a_bad_query_is_named_by_line(folder: Path, tmp_path: Path, line: str, sentence: str) -> None:
    dataset = write_dataset(tmp_path / "set", QUERIES, QRELS)
    good = json.dumps({"_id": "q0", "text": "fine"})
    (dataset / "queries.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(BadDataset, match=sentence):
        read_training_set(folder, dataset)


@pytest.mark.parametrize("line", ["q0 p0 1", "q0\tp0", "q0\tp0\thigh"])
def test_a_bad_judgment_is_named_by_line(folder: Path, tmp_path: Path, line: str) -> None:
    dataset = write_dataset(tmp_path / "set", QUERIES, QRELS)
    (dataset / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\nq0\tp0\t1\n{line}\n")
    with pytest.raises(BadDataset, match=r"qrels/train.tsv line 3"):
        read_training_set(folder, dataset)


def test_a_judgment_of_an_unknown_query_is_refused(folder: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", QUERIES, [*QRELS, ("q99", "p1", 1)])
    with pytest.raises(BadDataset, match=r"line 42: query 'q99' is not in queries.jsonl"):
        read_training_set(folder, dataset)


def test_a_matrix_that_does_not_fit_its_meta_is_refused(folder: Path) -> None:
    (folder / "ids.json").write_text(json.dumps(["p0"]))
    with pytest.raises(BadDataset, match="1 ids"):
        read_matrix(folder)
