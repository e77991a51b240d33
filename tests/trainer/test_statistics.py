"""Paired statistics against hand-computed cases, a textbook's example, and simulations of what they promise."""

import itertools

import numpy as np
import pytest

from trainer.statistics import Difference, compare_paired, holm, lower_bound

EACH = np.arange(4)


def test_hand_computed_mean_and_interval() -> None:
    before, after = np.zeros(4), np.array([0.0, 0.1, 0.2, 0.3])
    found = compare_paired(before, after, EACH)
    # sd = sqrt(0.05 / 3), se = sd / 2, t(3) at 97.5% = 3.18245
    half = 3.18245 * np.sqrt(0.05 / 3) / 2
    assert (found.mean, found.low, found.high) == pytest.approx((0.15, 0.15 - half, 0.15 + half), abs=1e-5)


def test_clusters_of_unequal_size_by_hand() -> None:
    # Cluster 0: differences 0.4, 0.2, 0.0 (sum 0.6); cluster 1: 0.1. Mean 0.7 / 4 = 0.175.
    after = np.array([0.4, 0.1, 0.2, 0.0])
    found = compare_paired(np.zeros(4), after, np.array([7, 3, 7, 7]))
    residuals = np.array([0.6 - 3 * 0.175, 0.1 - 0.175])
    half = 12.7062 * np.sqrt(2 * (residuals**2).sum()) / 4
    assert found.mean == pytest.approx(0.175)
    assert found.high == pytest.approx(0.175 + half, abs=1e-5)


@pytest.mark.parametrize(
    "differences", [[0.5, 0.5, 0.5, 0.5, 0.5], [0.5, -0.25, 0.1, 0.3, 0.0], [0.1, -0.1, 0.2, -0.2]]
)
def test_p_is_near_that_of_all_flips(differences: list[float]) -> None:
    values = np.array(differences)
    flips = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=len(values))]
    exact = np.mean([flip >= abs(values.sum()) - 1e-12 for flip in flips])
    found = compare_paired(np.zeros(len(values)), values, np.arange(len(values)), rounds=20_000)
    assert found.p == pytest.approx(exact, abs=0.015)


def test_p_is_never_zero_and_without_any_difference_one() -> None:
    same = np.full(50, 0.3)
    assert compare_paired(same, same, np.arange(50)) == Difference(mean=0.0, low=0.0, high=0.0, p=1.0)
    assert compare_paired(same, same + 0.5, np.arange(50), rounds=99).p == 0.01


def test_the_same_seed_gives_the_same_p_and_another_a_near_one() -> None:
    rng = np.random.default_rng(0)
    before, after, clusters = rng.random(60), rng.random(60), np.arange(60) // 3
    first, second, other = (compare_paired(before, after, clusters, seed=seed).p for seed in (1, 1, 2))
    assert first == second != other
    assert other == pytest.approx(first, abs=0.03)


def test_one_cluster_proves_nothing() -> None:
    found = compare_paired(np.zeros(9), np.full(9, 0.5), np.zeros(9, dtype=np.int64))
    assert (found.mean, found.low, found.high, found.p) == (0.5, -1.0, 1.0, 1.0)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one value per query"):
        compare_paired(np.zeros(3), np.zeros(4), EACH)
    with pytest.raises(ValueError, match="one value per query"):
        lower_bound(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), alpha=0.05)


def test_a_small_set_on_which_nothing_changed_shows_little() -> None:
    bounds = [lower_bound(np.ones(n), np.ones(n), np.arange(n), alpha=0.05) for n in (5, 20, 60, 600, 6000)]
    assert bounds == sorted(bounds)
    assert bounds[0] < -0.2
    assert bounds[1] < -0.05
    assert -0.025 < bounds[2] < -0.02  # as by the rule of three: 0.5 * 3 / 60
    assert -0.0025 < bounds[3] < -0.002
    stricter = lower_bound(np.ones(60), np.ones(60), np.arange(60), alpha=0.01)
    assert stricter < bounds[2]


def questions(rng: np.random.Generator, passages: int, *, fall: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reciprocal ranks before and after, 1 to 9 questions a passage; a passage's questions move together.

    A tenth of the passages is in motion; of its questions a share `fall` falls and the rest rises, by the same.
    """
    clusters = np.repeat(np.arange(passages), rng.integers(1, 10, size=passages))
    moving = (rng.random(passages) < 0.25)[clusters] & (rng.random(len(clusters)) < 0.6)
    falls = (rng.random(passages) < fall)[clusters]
    high, low = 1.0, rng.choice([0.5, 1 / 3, 0.2, 0.0], size=len(clusters))
    before = np.where(falls, high, low)
    after = np.where(moving, np.where(falls, low, high), before)
    return before, after, clusters


def test_under_no_difference_the_error_of_p_and_interval_is_near_their_level() -> None:
    rng = np.random.default_rng(5)
    found = [compare_paired(*questions(rng, 40, fall=0.5), seed=n, rounds=400) for n in range(600)]
    # 600 simulations at 5%: the standard error is 0.9 points. A test that took the questions for independent
    # would err in over 20%.
    assert 0.02 < np.mean([each.p <= 0.05 for each in found]) < 0.08
    assert 0.02 < np.mean([not each.low <= 0 <= each.high for each in found]) < 0.08


def test_the_lower_bound_is_above_the_truth_no_oftener_than_alpha_allows_even_where_falls_are_rare() -> None:
    rng = np.random.default_rng(6)
    truth = np.mean([np.subtract(*questions(rng, 400, fall=0.6)[1::-1]).mean() for _ in range(500)])
    wrong = [lower_bound(*questions(rng, 20, fall=0.6), alpha=0.05) > truth for _ in range(600)]
    assert np.mean(wrong) < 0.08


def test_holm_on_a_textbook_example() -> None:
    # Four tests; 4 * 0.005, 3 * 0.01, then the largest so far: 2 * 0.03 over 1 * 0.04.
    given = {"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.005}
    assert holm(given) == pytest.approx({"d": 0.06, "a": 0.03, "c": 0.06, "b": 0.02})
    assert list(holm(given)) == list(given)
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
