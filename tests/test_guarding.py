"""The rules that end a canary: what breaks one, and what chance and strange days do not."""

from dataclasses import replace

import numpy as np
import pytest

from app.guarding import Seen, broken
from app.registry import Rules, Tally
from app.registry.experiments import Arm
from app.registry.signals import Signal
from app.verdicts import find

RULES = Rules(
    alpha=0.05, min_requests=100, window_s=600, clicks=True, zero_hits=0.05, errors=0.02, latency=3.0, score_shift=0.1
)
SCORES_VARY = 0.15
NOBODY = Tally(active=Arm(), canary=Arm())


def share(
    errors: float = 0.01, empty: float = 0.02, ms: float = 10.0, score: float = 0.6, requests: int = 300
) -> Signal:
    return Signal(
        requests=requests,
        errors=round(errors * requests),
        empty=round(empty * requests),
        timed=requests,
        seconds=requests * ms / 1000,
        seconds_squared=requests * (ms / 1000) ** 2 * 1.1,
        scored=requests,
        score=requests * score,
        score_squared=requests * (score**2 + SCORES_VARY**2),
    )


CALM = share(requests=900)


def held(canary: Signal, active: Signal = CALM, *, rules: Rules = RULES, tally: Tally = NOBODY) -> str | None:
    found = find(tally, active="base@1", canary="bees@1", alpha=rules.alpha)
    return broken(rules, tally, found, {"active": active, "canary": canary})


def test_a_canary_like_the_active_encoder_may_stay() -> None:
    assert held(share()) is None
    assert held(share(errors=0.3, empty=0.4, ms=100), share(errors=0.3, empty=0.4, ms=100, requests=900)) is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"errors": 0.2}, "Rule errors: 20.0% of 300 searches of the canary failed in the last 600 s, 1.0% of 900 of"),
        ({"empty": 0.4}, "Rule zero_hits: 40.0% of 300 searches of the canary found nothing in the last 600 s, 2.0%"),
        ({"score": 0.3}, "Rule score_shift: the best hits score 0.300 in the mean of 300 queries of the canary in the"),
        ({"score": 0.9}, "Rule score_shift: the best hits score 0.900 in the mean of 300 queries of the canary in the"),
        ({"ms": 60.0}, "Rule latency: 60.0 ms in the mean of 300 searches of the canary in the last 600 s, 10.0 ms"),
    ],
)
def test_what_goes_worse_than_is_allowed_ends_it(bad: dict[str, float], said: str) -> None:
    found = held(share(**bad))
    assert found is not None
    assert found.startswith(said)
    assert held(share(**bad, requests=90)) is None  # too few
    off = replace(RULES, errors=None, zero_hits=None, latency=None, score_shift=None)
    assert held(share(**bad), rules=off) is None


@pytest.mark.parametrize("bad", [{"errors": 0.025}, {"empty": 0.07}, {"ms": 29.0}, {"score": 0.5}, {"score": 0.72}])
def test_what_is_allowed_or_may_be_chance_ends_nothing(bad: dict[str, float]) -> None:
    assert held(share(**bad)) is None


def test_times_of_what_was_remembered_say_nothing() -> None:
    assert held(replace(share(ms=60.0), timed=50)) is None


def test_scores_of_few_searches_say_nothing_and_scores_without_a_spread_say_what_they_are() -> None:
    assert held(replace(share(), scored=50, score=5.0, score_squared=0.5)) is None
    still = {"scored": 300, "score_squared": 0.0}  # below what rounding leaves of the variance
    active, canary = replace(CALM, **still, score=180.0), replace(share(), **still, score=120.0)
    assert (held(canary, active) or "").startswith("Rule score_shift: the best hits score 0.400")


def test_a_worse_share_of_clicks_ends_it() -> None:
    active = Arm(requests=900, users=900, clicked=540, squares=900, products=540, clicked_squares=540)
    canary = Arm(requests=150, users=150, clicked=20, squares=150, products=20, clicked_squares=20)
    tally = Tally(active=active, canary=canary)
    found = held(share(), tally=tally)
    assert found is not None
    assert found.startswith("Rule clicks: bees@1 had a click in 13.3% of 150 requests")
    assert held(share(), tally=tally, rules=replace(RULES, clicks=False)) is None
    assert held(share(), tally=tally, rules=replace(RULES, min_requests=200)) is None
    assert held(share(), tally=Tally(active=canary, canary=active)) is None  # a better one stays


def test_chance_seldom_ends_one_by_errors_though_it_is_looked_at_all_the_time() -> None:
    ended = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        failed = {role: (rng.random(n) < 0.05).cumsum() for role, n in (("active", 5_400), ("canary", 600))}
        ended += any(
            held(
                Signal(requests=n, errors=int(failed["canary"][n - 1])),
                Signal(requests=9 * n, errors=int(failed["active"][9 * n - 1])),
            )
            is not None
            for n in range(100, 601, 10)
        )
    assert ended <= 2


def test_what_was_seen_is_taken_once() -> None:
    seen = Seen()
    seen.saw(2, "canary", Signal(requests=1, errors=1))
    seen.saw(2, "canary", Signal(requests=1, seconds=0.5))
    seen.saw(3, "active", Signal(requests=1))
    assert seen.take() == {
        (2, "canary"): Signal(requests=2, errors=1, seconds=0.5),
        (3, "active"): Signal(requests=1),
    }
    assert seen.take() == {}
