"""Verdicts on simulated users: who asks often, and who clicks often, must not make evidence out of chance."""

from collections import defaultdict

import numpy as np
import pytest

from app.registry import Tally
from app.registry.experiments import Arm
from app.verdicts import ALPHA, difference, find, lead

Counts = dict[str, int]


class Users:
    """Requests one by one, with the sums that the registry makes of them."""

    def __init__(self) -> None:
        self.asked: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.arms: tuple[Counts, Counts] = (defaultdict(int), defaultdict(int))

    def ask(self, user: int, canary: bool, clicked: bool) -> None:
        n, c = self.asked[user]
        more = {"requests": 1, "users": n == 0, "clicked": clicked, "squares": 2 * n + 1}
        more |= {"products": (n + 1) * (c + clicked) - n * c, "clicked_squares": clicked * (2 * c + 1)}
        for name, value in more.items():
            self.arms[canary][name] += int(value)
        self.asked[user] = [n + 1, c + clicked]

    def tally(self) -> Tally:
        active, canary = self.arms
        return Tally(active=Arm(**active), canary=Arm(**canary))


def verdict_of(
    seed: int, *, users: int, share: float, rate: float, alike: float, canary_rate: float | None = None
) -> tuple[str, int] | None:
    """The first that is decided in 1,500 requests, and after how many. Each user clicks at a rate of their own around
    `rate`, or with the canary around `canary_rate`; where they are not `alike` few of them ask most."""
    rng = np.random.default_rng(seed)
    asks = np.ones(users) if alike > 1_000 else rng.pareto(1.5, users) + 0.1
    canary = rng.random(users) < share
    rates = rng.beta(rate * alike, (1 - rate) * alike, users)
    if canary_rate is not None:
        rates = np.where(canary, rates * canary_rate / rate, rates)
    seen = Users()
    for request, user in enumerate(rng.choice(users, 1_500, p=asks / asks.sum()), 1):
        seen.ask(int(user), bool(canary[user]), bool(rng.random() < rates[user]))
        if request % 5 == 0:
            effect = difference(seen.tally())
            if effect is not None and effect.decided(ALPHA):
                return "better" if effect.estimate > 0 else "worse", request
    return None


@pytest.mark.parametrize(("users", "alike"), [(1_500, 1e6), (300, 2.0)])
def test_a_neutral_canary_is_seldom_judged_though_it_is_looked_at_all_the_time(users: int, alike: float) -> None:
    found = [verdict_of(seed, users=users, share=0.1, rate=0.4, alike=alike) for seed in range(60)]
    assert sum(each is not None for each in found) <= 3


def test_a_bad_canary_is_judged_soon() -> None:
    found = [verdict_of(seed, users=1_500, share=0.1, rate=0.6, alike=1e6, canary_rate=0.2) for seed in range(20)]
    assert all(each is not None and each[0] == "worse" for each in found)


def test_the_variance_is_that_of_users_where_they_differ_and_of_requests_where_they_do_not() -> None:
    """By hand: 100 users of 2 requests each in either arm, half of whom always click: share 1/2, each user's
    (c - n/2)^2 is 1, so 100 * 100/99 / 200^2 an arm; where each clicks once, requests alone give 200/4 / 200^2."""
    always = Arm(requests=200, users=100, clicked=100, squares=400, products=200, clicked_squares=200)
    effect = difference(Tally(active=always, canary=always))
    assert effect is not None
    assert effect.variance == pytest.approx(2 * 100 * 100 / 99 / 200**2)
    once = Arm(requests=200, users=100, clicked=100, squares=400, products=200, clicked_squares=100)
    effect = difference(Tally(active=once, canary=once))
    assert effect is not None
    assert effect.variance == pytest.approx(2 * 50 / 200**2)


def test_a_verdict_in_words() -> None:
    few = Arm(requests=1_000, users=10, clicked=500, squares=1, products=1, clicked_squares=1)
    assert find(Tally(active=few, canary=few), active="base@1", canary="bees@1").said == (
        "Too little to tell yet: 1,000 requests of 10 users of the active encoder and 1,000 requests of 10 users of "
        "the canary, 1000 of them with a click. It takes 50 requests of 20 users each, and 10 with a click."
    )
    active = Arm(requests=900, users=900, clicked=540, squares=900, products=540, clicked_squares=540)
    canary = Arm(requests=100, users=100, clicked=20, squares=100, products=20, clicked_squares=20)
    found = find(Tally(active=active, canary=canary), active="base@1", canary="bees@1")
    assert found.verdict == "worse"
    assert found.said == (
        "bees@1 had a click in 20.0% of 100 requests of 100 users, base@1 in 60.0% of 900 requests of 900 users: a "
        "difference of -40.0 points, between -57.7 points and -22.3 points. The canary is worse; where there is no "
        "difference, such a test ever errs in 5% of the cases."
    )
    same = find(Tally(active=active, canary=active), active="base@1", canary="bees@1")
    assert same.verdict == "undecided"
    assert same.said.endswith("That may be chance: the test has not decided yet.")


def wins(canary: int, active: int, squares: int) -> Tally:
    arms = {name: Arm(requests=500, users=400, wins=won) for name, won in (("active", active), ("canary", canary))}
    return Tally(active=arms["active"], canary=arms["canary"], interleaved=True, squares=squares)


def test_wins_of_an_interleaving_are_a_sign_test() -> None:
    """By hand: 30 of 40 won, each by somebody else: a lead of 20/40 with the variance 40/40^2; of two users who won 30
    and lost 10 it is (30^2 + 10^2) / 40^2, and says nothing."""
    effect = lead(wins(30, 10, squares=40))
    assert effect is not None
    assert (effect.estimate, effect.variance) == (0.5, 1 / 40)
    assert effect.decided(ALPHA)
    two = lead(wins(30, 10, squares=30**2 + 10**2))
    assert two is not None
    assert two.variance == pytest.approx(0.625)
    assert not two.decided(ALPHA)
    assert lead(wins(0, 0, squares=0)) is None


def test_a_verdict_of_wins_in_words() -> None:
    none = find(wins(0, 0, squares=0), active="base@1", canary="bees@1")
    assert (none.verdict, none.said) == (
        "too-few",
        "Nothing to tell yet: 500 requests of 400 users, and no click that speaks for either encoder.",
    )
    found = find(wins(30, 10, squares=40), active="base@1", canary="bees@1")
    assert found.verdict == "better"
    assert found.said == (
        "Of 500 requests of 400 users that both answered, bees@1 won 30 and base@1 10: the canary has 75.0% of these "
        "40, between 50.5% and 99.5%. The canary is better; where there is no difference, such a test ever errs in 5% "
        "of the cases."
    )


def test_a_coin_is_seldom_taken_for_a_winner_though_every_win_is_looked_at() -> None:
    decided = 0
    for seed in range(200):
        tosses = np.random.default_rng(seed).integers(0, 2, 600).cumsum()
        tallies = (wins(int(won), n - int(won), squares=n) for n, won in enumerate(tosses, 1))
        decided += any(find(each, active="a", canary="c").verdict != "undecided" for each in tallies)
    assert decided <= 10
