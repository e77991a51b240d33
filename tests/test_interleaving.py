"""Team-draft interleaving: a list of both, fair to both."""

import random
from itertools import combinations

import pytest

from app.interleaving import ACTIVE, CANARY, SHARED, team_draft

OURS = ["a", "b", "c", "d"]
SEEDS = [str(n) for n in range(2_000)]


def test_each_round_a_coin_says_who_picks_first_and_each_picks_its_best_that_is_left() -> None:
    """By hand: for [a, b] and [c, a] the first round is a, c or c, a; what is left for the second is b alone."""
    found = {tuple(team_draft(["a", "b"], ["c", "a"], seed, 9)[0]) for seed in SEEDS}
    assert found == {("a", "c", "b"), ("c", "a", "b")}
    teams = {team_draft(["a", "b"], ["c", "a"], seed, 9) == (["c", "a", "b"], "caa") for seed in SEEDS}
    assert teams == {True, False}


def test_what_both_would_pick_next_is_nobodys() -> None:
    assert team_draft(OURS, OURS, "x", 3) == (["a", "b", "c"], SHARED * 3)
    drafted, teams = team_draft(OURS, ["a", "d", "b", "c"], "x", 9)
    assert sorted(drafted) == OURS
    assert teams == SHARED + {"b": "ac", "d": "ca"}[drafted[1]] + SHARED  # a, then b and d by a coin; both have c left
    assert {team_draft(["a", "b", "x"], ["b", "a", "x"], seed, 9)[1] for seed in SEEDS} == {"ac=", "ca="}


@pytest.mark.parametrize("seed", SEEDS[:20])
def test_a_deeper_list_begins_with_a_shorter_one(seed: str) -> None:
    rng = random.Random(seed)
    ours, theirs = rng.sample(range(40), 30), rng.sample(range(40), 30)
    lists = [team_draft([*map(str, ours[:n])], [*map(str, theirs[:n])], seed, n) for n in (5, 10, 30)]
    for (short, teams), (long, more) in combinations(lists, 2):
        assert (long[: len(short)], more[: len(short)]) == (short, teams)
        assert len(set(long)) == len(long)


def test_who_finds_nothing_leaves_all_to_the_other() -> None:
    assert team_draft([], ["a", "b"], "x", 9) == (["a", "b"], CANARY * 2)
    assert team_draft(["a"], [], "x", 9) == (["a"], ACTIVE)
    assert team_draft([], [], "x", 9) == ([], "")


def test_users_who_click_whatever_stands_first_prefer_neither() -> None:
    """And those who look for one passage prefer who has it higher."""
    first = [team_draft(OURS, ["d", "c", "b", "a"], seed, 4)[1][0] for seed in SEEDS]
    assert abs(first.count(CANARY) / len(SEEDS) - 0.5) < 0.04
    wins = 0
    for seed in SEEDS:
        drafted, teams = team_draft(["x", "y", "a"], ["a", "z", "w"], seed, 6)
        wins += teams[drafted.index("a")] == CANARY
    assert wins == len(SEEDS)
