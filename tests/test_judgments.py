"""Judgments as a dataset: split by time, counted and digested as the files that are written out."""

import json
from pathlib import Path

import pytest

from app.beir import check, digest
from app.errors import BadDataset, DatasetNotFound
from app.judgments import JudgedNow, to_content
from app.registry import Judgment, NewJudgment, Registry


def said(query: str, passage_id: str = "p1", relevance: int = 1, at: float = 0.0, lang: str | None = None) -> Judgment:
    new = NewJudgment(query=query, passage_id=passage_id, relevance=relevance, lang=lang)
    return Judgment(
        sequence=int(at * 10),
        id=new.id,
        query_id=new.query_id,
        query=query,
        passage_id=passage_id,
        relevance=relevance,
        lang=lang,
        first_judged_at=at,
        judged_at=at,
    )


def written(folder: Path, judgments: list[Judgment]) -> dict[str, list[str]]:
    """The lines of every file."""
    to_content(judgments).write(folder)
    return {path.name: path.read_text().splitlines() for path in folder.rglob("*") if path.is_file()}


def texts(folder: Path, split: str) -> list[str]:
    queries = {
        line["_id"]: line["text"] for line in map(json.loads, (folder / "queries.jsonl").read_text().splitlines())
    }
    rows = (folder / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
    return list(dict.fromkeys(queries[row.split("\t")[0]] for row in rows))


def test_the_newest_fifth_of_the_queries_is_dev_by_their_first_judgment(tmp_path: Path) -> None:
    judgments = [said(f"why {n}", at=n) for n in range(11)]
    judgments.append(said("why 0", "p2", at=99))  # its query is old all the same
    to_content(judgments[::-1]).write(tmp_path)
    assert texts(tmp_path, "train") == [f"why {n}" for n in range(9)]
    assert texts(tmp_path, "dev") == ["why 9", "why 10"]


def test_what_was_dev_becomes_train_as_newer_ones_come(tmp_path: Path) -> None:
    for count, dev in ((1, []), (2, [1]), (5, [4]), (10, [8, 9]), (100, list(range(80, 100)))):
        folder = tmp_path / str(count)
        folder.mkdir()
        to_content([said(f"why {n}", at=n) for n in range(count)]).write(folder)
        assert (folder / "qrels" / "dev.tsv").exists() == bool(dev)
        assert dev == [] or texts(folder, "dev") == [f"why {n}" for n in dev]
        assert len(texts(folder, "train")) == count - len(dev)


def test_queries_of_which_nothing_is_relevant_count_for_no_split(tmp_path: Path) -> None:
    judgments = [said(f"why {n}", at=n) for n in range(5)] + [said(f"no {n}", relevance=0, at=10 + n) for n in range(9)]
    judgments.append(said("no early", relevance=0, at=0.5))
    content = to_content(judgments)
    content.write(tmp_path)
    assert texts(tmp_path, "train") == ["why 0", "no early", "why 1", "why 2", "why 3"]
    assert texts(tmp_path, "dev") == ["why 4", *(f"no {n}" for n in range(9))]
    assert content.pairs == 4
    assert list(to_content([said("no", relevance=0)]).counts["splits"]) == ["train"]


def test_spellings_that_differ_in_case_alone_are_in_one_split(tmp_path: Path) -> None:
    judgments = [said("Why", at=0), *(said(f"how {n}", at=n) for n in range(1, 9)), said("why", at=9)]
    to_content(judgments).write(tmp_path)
    assert texts(tmp_path, "train")[:2] == ["Why", "why"]
    assert texts(tmp_path, "dev") == ["how 8"]


def test_grades_and_the_newest_language_are_written_as_they_were_said(tmp_path: Path) -> None:
    judgments = [
        said("où  est", "p1", 3, at=1, lang="fr"),
        said("où  est", "p 2", 0, at=2, lang="fr-CA"),
        said("où  est", "p3", 1, at=3),
    ]
    files = written(tmp_path, judgments)
    query = judgments[0].query_id
    assert json.loads(files["queries.jsonl"][0]) == {"_id": query, "text": "où  est", "metadata": {"lang": "fr-CA"}}
    assert files["train.tsv"] == [
        "query-id\tcorpus-id\tscore",
        f"{query}\tp1\t3",
        f"{query}\tp 2\t0",
        f"{query}\tp3\t1",
    ]


def test_counts_and_digest_are_those_of_the_files(tmp_path: Path) -> None:
    langs = ("de", "en", None)
    judgments = [said(f"why {n % 13}", f"p{n}", n % 4, at=n, lang=langs[n % 13 % 3]) for n in range(60)]
    content = to_content(judgments)
    content.write(tmp_path)
    assert content.counts == check(tmp_path)
    assert content.digest == digest(tmp_path)
    assert to_content(judgments[::-1]) == content


def test_it_is_made_anew_only_where_something_changed(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    now = JudgedNow(registry, eta=1, per_key=1_000)
    with pytest.raises(DatasetNotFound, match="'judgments' is empty; POST /judgments fills it"):
        now.content()
    new = NewJudgment(query="why", passage_id="p1", relevance=1, lang=None)
    made, _ = registry.judgments.put(new)
    first = now.content()
    registry.judgments.put(new)
    assert now.content() is first
    registry.judgments.put(NewJudgment(query="why", passage_id="p1", relevance=2, lang=None))
    assert now.content().digest != first.digest
    registry.judgments.delete(made.id)
    with pytest.raises(DatasetNotFound):
        now.content()


def test_what_is_too_little_says_how_much_and_how_to_send_more() -> None:
    few = to_content([*(said("why", f"p{n}") for n in range(3)), said("why", "p9", 0)])
    with pytest.raises(BadDataset, match=r"'judgments' has 3 of the 32 pairs .*: send more by POST /judgments"):
        few.require_pairs()
    with pytest.raises(BadDataset, match=r"has no split 'dev' but train\. .* as soon as two have a relevant passage"):
        few.require_split("dev")
    enough = to_content([said("why", f"p{n}") for n in range(32)] + [said("how", at=1)])
    enough.require_pairs()
    enough.require_split("dev")
    with pytest.raises(BadDataset, match="has no split 'test' but dev and train"):
        enough.require_split("test")
