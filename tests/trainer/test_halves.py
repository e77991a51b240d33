"""Choose and prove halves: who falls where, and that nothing but query ids and the seed decides it."""

import numpy as np
import pytest

from app.errors import BadDataset
from trainer.halves import clusters, split_halves
from trainer.training_set import Judged


def judged(*relevant: list[int], missing: tuple[tuple[str, str], ...] = ()) -> Judged:
    """Queries q0, q1, … with these rows."""
    count = len(relevant)
    return Judged(
        ids=tuple(f"q{i}" for i in range(count)),
        texts=tuple(f"question {i}" for i in range(count)),
        langs=("en",) * count,
        relevant=tuple(np.array(rows, dtype=np.int64) for rows in relevant),
        missing=missing,
    )


MANY = judged(*[[i // 2] for i in range(800)])


def test_queries_that_share_a_passage_directly_or_over_others_are_one_cluster() -> None:
    found = clusters(judged([0], [1, 2], [3], [2, 4], [4], [3, 0]))
    assert found[1] == found[3] == found[4]
    assert found[0] == found[2] == found[5]
    assert len(set(found.tolist())) == 2


def test_a_cluster_falls_into_one_half_and_every_query_into_one() -> None:
    rng = np.random.default_rng(0)
    whole = judged(*[rng.choice(400, size=rng.integers(1, 3), replace=False).tolist() for _ in range(200)])
    number = dict(zip(whole.ids, clusters(whole).tolist(), strict=True))
    choose, prove = split_halves(whole)
    assert sorted(choose.ids + prove.ids) == sorted(whole.ids)
    assert not {number[i] for i in choose.ids} & {number[i] for i in prove.ids}


def test_the_halves_are_about_equal_and_another_seed_cuts_elsewhere() -> None:
    halves = [split_halves(MANY, seed=seed) for seed in range(5)]
    assert all(len(choose.ids) == 400 for choose, _ in halves)
    proved = [set(prove.ids) for _, prove in halves]
    assert all(150 < len(proved[0] & other) < 260 for other in proved[1:])  # a quarter of 800 is in both


def test_neither_the_order_of_queries_nor_that_of_passages_moves_anyone() -> None:
    rng = np.random.default_rng(1)
    order, rows = rng.permutation(798), rng.permutation(400)
    back = np.argsort(rows)  # where a passage is now
    whole = judged(*[[i // 2, i // 2 // 3 * 3 + 2] for i in range(798)])  # clusters of three passages
    shuffled = whole.take(order.tolist())
    moved = Judged(
        ids=shuffled.ids,
        texts=shuffled.texts,
        langs=shuffled.langs,
        relevant=tuple(back[each] for each in shuffled.relevant),
        missing=(),
    )
    proved = set(split_halves(whole)[1].ids)
    assert set(split_halves(moved)[1].ids) == proved


def test_a_set_that_grows_keeps_its_halves_but_for_the_clusters_near_the_cut() -> None:
    some = MANY.take(range(600))
    proved = set(split_halves(some)[1].ids)
    moved = proved ^ (set(split_halves(MANY)[1].ids) & set(some.ids))
    assert len(moved) < 40


def test_the_cut_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Halves that moved would prove a new encoder on what an old one was chosen by."""
    proved = split_halves(judged(*[[i] for i in range(12)]))[1].ids
    assert proved == ("q0", "q1", "q3", "q6", "q9", "q11")


def test_translations_of_one_set_are_cut_alike_whatever_their_passages_are_called() -> None:
    other = judged(*[[399 - i // 2] for i in range(800)])  # the same questions about another corpus
    assert [half.ids for half in split_halves(MANY)] == [half.ids for half in split_halves(other)]


def test_a_half_keeps_what_is_missing_of_its_queries() -> None:
    gone = tuple((f"q{i}", "gone") for i in range(800))
    whole = judged(*[[i // 2] for i in range(800)], missing=gone)
    choose, prove = split_halves(whole)
    assert set(choose.missing) == {(i, "gone") for i in choose.ids}
    assert set(prove.missing) == {(i, "gone") for i in prove.ids}


@pytest.mark.parametrize("relevant", [[[0], [0], [0]], [[0, 1], [1, 2], [2, 3]]])
def test_a_set_that_cannot_be_cut_is_refused_with_what_mends_it(relevant: list[list[int]]) -> None:
    with pytest.raises(BadDataset, match=r"set 'german' cannot be cut .* 3 queries all share their passages; add"):
        split_halves(judged(*relevant), name="german")


def test_a_set_without_queries_has_no_clusters() -> None:
    assert clusters(judged()).shape == (0,)
