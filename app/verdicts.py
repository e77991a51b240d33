"""What an experiment says so far: an effect with its interval, a verdict, and both in plain words.

Who asks keeps to one encoder, so requests of one user are no independent evidence: what is compared are the shares of
requests with a click, with the variance that users as clusters give them. Where that is less than requests as such
would give, it is those: few users may agree by chance.
"""

import math
from dataclasses import dataclass
from typing import Literal

from app.registry import Tally
from app.registry.experiments import Arm
from app.sequential import Effect

Verdict = Literal["better", "worse", "undecided", "too-few"]

ALPHA = 0.05
MIN_REQUESTS = 50  # of each encoder, and
MIN_USERS = 20  # so many who ask: below, a variance cannot be estimated
MIN_CLICKED = 10  # of both together, and as many without a click
SPREAD = 0.1  # of differences between shares with a click, as they are expected
SPREAD_OF_WINS = 0.3  # and of the leads of an interleaving, from -1 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Of the canary against the active encoder; `effect` is None where too few asked."""

    effect: Effect | None
    verdict: Verdict
    said: str


def find(tally: Tally, *, active: str, canary: str, alpha: float = ALPHA) -> Finding:
    """`active` and `canary` are their names, for the words."""
    effect = lead(tally) if tally.interleaved else difference(tally)
    if effect is None:
        return Finding(effect=None, verdict="too-few", said=_too_few(tally))
    verdict: Verdict = "undecided"
    if effect.decided(alpha):
        verdict = "better" if effect.estimate > 0 else "worse"
    told = _said_of_wins if tally.interleaved else _said
    return Finding(effect=effect, verdict=verdict, said=told(tally, effect, verdict, active, canary, alpha))


def difference(tally: Tally) -> Effect | None:
    """Of the canary's share of requests with a click and the active encoder's."""
    arms = tally.active, tally.canary
    clicked = sum(arm.clicked for arm in arms)
    enough = all(arm.requests >= MIN_REQUESTS and arm.users >= MIN_USERS for arm in arms)
    if not enough or not MIN_CLICKED <= clicked <= tally.requests - MIN_CLICKED:
        return None
    share = clicked / tally.requests
    variance = sum(_variance(arm, share) for arm in arms)
    return Effect(estimate=rate(tally.canary) - rate(tally.active), variance=variance, spread=SPREAD)


def lead(tally: Tally) -> Effect | None:
    """Of an interleaving: the canary's wins less the active encoder's, of all that either won.

    Where neither is better a win is a fair coin, so this holds for few too (`app.sequential`); the sum over users of
    their leads squared, where that is more, keeps one who asks all day from counting as many.
    """
    won = tally.active.wins + tally.canary.wins
    if won == 0:
        return None
    estimate = (tally.canary.wins - tally.active.wins) / won
    return Effect(estimate=estimate, variance=max(won, tally.squares) / won**2, spread=SPREAD_OF_WINS)


def rate(arm: Arm) -> float:
    return arm.clicked / arm.requests if arm.requests else math.nan


def _variance(arm: Arm, share: float) -> float:
    """Of an arm's share around `share`, the one of both: what it would be if there were no effect.

    The sum over users of (c - share n)^2, who are drawn independently.
    """
    clustered = arm.clicked_squares - 2 * share * arm.products + share**2 * arm.squares
    clustered *= arm.users / (arm.users - 1)
    return max(clustered, arm.requests * share * (1 - share)) / arm.requests**2


def _too_few(tally: Tally) -> str:
    if tally.interleaved:
        return f"Nothing to tell yet: {_asked(tally.active)}, and no click that speaks for either encoder."
    return (
        f"Too little to tell yet: {_asked(tally.active)} of the active encoder and {_asked(tally.canary)} of the "
        f"canary, {tally.active.clicked + tally.canary.clicked} of them with a click. It takes {MIN_REQUESTS} requests "
        f"of {MIN_USERS} users each, and {MIN_CLICKED} with a click."
    )


def _asked(arm: Arm) -> str:
    return f"{arm.requests:,} requests of {arm.users:,} users"


def _said(tally: Tally, effect: Effect, verdict: Verdict, active: str, canary: str, alpha: float) -> str:
    low, high = effect.interval(alpha)
    return (
        f"{canary} had a click in {rate(tally.canary):.1%} of {_asked(tally.canary)}, {active} in "
        f"{rate(tally.active):.1%} of {_asked(tally.active)}: a difference of {_points(effect.estimate)}, between "
        f"{_points(low)} and {_points(high)}. {_judged(verdict, alpha)}"
    )


def _said_of_wins(tally: Tally, effect: Effect, verdict: Verdict, active: str, canary: str, alpha: float) -> str:
    low, high = effect.interval(alpha)
    won = tally.active.wins + tally.canary.wins
    return (
        f"Of {_asked(tally.active)} that both answered, {canary} won {tally.canary.wins:,} and {active} "
        f"{tally.active.wins:,}: the canary has {_share(effect.estimate)} of these {won:,}, between {_share(low)} and "
        f"{_share(high)}. {_judged(verdict, alpha)}"
    )


def _share(lead: float) -> str:
    return f"{min(max((1 + lead) / 2, 0), 1):.1%}"


def _points(share: float) -> str:
    return f"{share * 100:+.1f} points"


def _judged(verdict: Verdict, alpha: float) -> str:
    if verdict == "undecided":
        return "That may be chance: the test has not decided yet."
    return f"The canary is {verdict}; where there is no difference, such a test ever errs in {alpha:.0%} of the cases."
