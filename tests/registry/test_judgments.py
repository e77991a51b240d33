"""The registry of judgments on a real SQLite file: the newest word counts, and revisions tell of every change."""

import threading
from pathlib import Path

import pytest

from app.errors import JudgmentNotFound
from app.registry import Judgment, NewJudgment, Registry
from tests.registry.conftest import registry_of


def new(query: str = "why", passage_id: str = "p1", relevance: int = 1, lang: str | None = None) -> NewJudgment:
    return NewJudgment(query=query, passage_id=passage_id, relevance=relevance, lang=lang)


def put(registry: Registry, query: str = "why", passage_id: str = "p1", relevance: int = 1) -> Judgment:
    return registry.judgments.put(new(query, passage_id, relevance))[0]


def test_the_newest_word_on_a_pair_counts_and_keeps_its_id_and_first_time(registry: Registry) -> None:
    first, was_new = registry.judgments.put(new(lang="en"))
    other = put(registry, "how")
    again, again_new = registry.judgments.put(new(relevance=0))
    assert (was_new, again_new) == (True, False)
    assert (again.id, again.query_id, again.first_judged_at) == (first.id, first.query_id, first.judged_at)
    assert (again.relevance, again.lang) == (0, None)
    assert again.judged_at > first.judged_at
    assert registry.judgments.all() == [other, again]
    assert registry.judgments.page(10) == [again, other]


def test_the_same_word_again_changes_nothing(registry: Registry) -> None:
    first, before = put(registry), registry.judgments.revision()
    assert registry.judgments.put(new()) == (first, False)
    assert registry.judgments.revision() == before


def test_a_query_and_a_passage_are_told_apart_wherever_one_ends(registry: Registry) -> None:
    assert put(registry, "a", "b c").id != put(registry, "a b", "c").id
    assert sum(registry.judgments.count().values()) == 2
    assert put(registry, "a", "d").query_id == put(registry, "a", "b c").query_id


def test_pages_go_on_where_the_last_one_ended_whatever_came_since(registry: Registry) -> None:
    made = [put(registry, f"why {n}") for n in range(5)]
    page = registry.judgments.page(2)
    put(registry, "newer")
    rest = registry.judgments.page(9, before=page[-1].sequence)
    assert page + rest == made[::-1]
    assert registry.judgments.page(9, query="why 3") == [made[3]]
    assert [sum(registry.judgments.count(query).values()) for query in ("why 3", "why 9")] == [1, 0]


def test_what_is_taken_back_is_gone_once(registry: Registry) -> None:
    made = put(registry)
    registry.judgments.delete(made.id)
    assert registry.judgments.all() == []
    with pytest.raises(JudgmentNotFound, match=made.id):
        registry.judgments.delete(made.id)


def test_a_revision_is_never_that_of_other_judgments(registry: Registry) -> None:
    seen = [registry.judgments.revision()]
    for n in range(3):
        put(registry, f"why {n}")
        seen.append(registry.judgments.revision())
    put(registry, "why 0", relevance=2)
    seen.append(registry.judgments.revision())
    registry.judgments.delete(put(registry, "why 0", relevance=3).id)  # the newest: its sequence must not come again
    put(registry, "why 9")
    seen.append(registry.judgments.revision())
    assert len(set(seen)) == len(seen)


def test_two_who_judge_the_same_pair_at_once_leave_one_judgment(registry: Registry) -> None:
    made: list[bool] = []
    start = threading.Barrier(8)

    def judge(relevance: int) -> None:
        start.wait()
        for _ in range(5):
            made.append(registry.judgments.put(new(relevance=relevance))[1])

    threads = [threading.Thread(target=judge, args=(n % 4,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 1
    assert sum(registry.judgments.count().values()) == 1


def test_a_dataset_that_somebody_called_judgments_before_is_kept_under_another_name(
    empty_database: Path | str,
) -> None:
    registry_of(empty_database, "0004", ["INSERT INTO datasets VALUES ('judgments', 'sha256:a', '{}', 0)"])
    registry = Registry(empty_database)
    found = [(each.name, each.digest) for each in registry.datasets.all()]
    assert found == [("judgments-uploaded", "sha256:a")]
    registry.close()
