"""From clicks to judgments, with the bias of the position taken out.

People look at the first hits most, and click on some of what they look at. By the examination hypothesis a hit at
rank k is looked at with a probability p(k) = 1 / k ** eta (0: every hit is), and clicked if it is looked at and
attracts: what answers the query does so with a probability a, anything else with b. So each time that a passage was
shown for a query speaks for or against it, by Bayes' rule:

    a click, at any rank        a / b                           people looked, or they could not have clicked
    none, at rank k             (1 - a p(k)) / (1 - b p(k))     at a deep rank next to nothing: nobody may have looked

and before that it is as likely relevant as passages at its rank mostly are. a, b and that share at each rank are what
fits the log best (expectation maximization, as Wang, Golbandi, Bendersky, Metzler, Najork, "Position Bias Estimation
for Unbiased Learning to Rank in Personal Search", WSDM 2018, for other unknowns); a few made-up impressions hold them
where the log says little. A mean of clicks divided by p(k) was tried and took every chance click for an answer: what is
seldom looked at is then judged by one click (docs/LOG.md).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.registry import Judgment, LoggedSearch
from app.registry.judgments import id_of

LIKELY = 0.5  # to be relevant, from which on a pair that was clicked is taken for it
RELEVANT = 1
DAY_S = 24 * 3600.0

ATTRACTS, OTHERS, SHARE = 0.7, 0.1, 0.3  # a, b, and the share of what is relevant, before the log says anything
MADE_UP = 10.0  # looks at a relevant passage and at another, and passages of each rank, that say so
APART = 4  # a over b at least: in a log where all is alike the two would become one, and nothing be said
MOST_LOOKS = 5.0  # of a pair that count for a and b: else one query that is asked all day would set them for all
RANKS = 20  # have a share of their own; all deeper ones have one
ROUNDS, SETTLED = 200, 1e-4

Floats = NDArray[np.float64]
Story = tuple[int, ...]  # best rank, clicks, and the positions where there was none


@dataclass(kw_only=True, slots=True)
class _Pair:
    """A query and a passage: the positions at which it was shown, and when it was clicked."""

    clicked_at: list[float] = field(default_factory=list)
    passed_over: list[int] = field(default_factory=list)  # positions where it was shown and not clicked
    best: int = 2**31  # position

    @property
    def story(self) -> Story:
        """All that is known of it: of 90,000 pairs some hundred are different."""
        return (min(self.best, RANKS + 1), len(self.clicked_at), *sorted(self.passed_over))


def to_judgments(searches: Sequence[LoggedSearch], *, eta: float, per_key: int) -> list[Judgment]:
    """The clicked pairs that are likelier relevant than not, by their first click, as judgments of grade 1.

    `per_key`: so many clicks of a key in one day count at most; of a key with more, a sample. What was shown and left
    alone is no judgment: it may not have been looked at.
    """
    of_query: dict[str, list[LoggedSearch]] = defaultdict(list)
    for search in _counted(searches, per_key):
        of_query[search.query_id].append(search)
    numbers: Counter[Story] = Counter()
    clicked: list[tuple[LoggedSearch, str, _Pair]] = []
    for asked in of_query.values():
        languages = [search for search in asked if search.lang is not None]
        said = max(languages, key=lambda search: search.at, default=asked[0])  # the newest word on its language
        for passage_id, pair in _pairs(asked).items():
            numbers[pair.story] += 1
            if pair.clicked_at:
                clicked.append((said, passage_id, pair))
    likely = _likely(numbers, eta)
    found = [_judgment(*each) for each in clicked if likely[each[2].story] >= LIKELY]
    return sorted(found, key=lambda each: (each.first_judged_at, each.id))


def _pairs(asked: Iterable[LoggedSearch]) -> dict[str, _Pair]:
    """Of the searches for one query, by passage."""
    pairs: dict[str, _Pair] = defaultdict(_Pair)
    for search in asked:
        clicked = {click.passage_id: click.at for click in search.clicks}
        for position, passage_id in enumerate(search.shown, search.offset + 1):
            pair = pairs[passage_id]
            pair.best = min(pair.best, position)
            if passage_id in clicked:
                pair.clicked_at.append(clicked[passage_id])
            else:
                pair.passed_over.append(position)
    return pairs


def _likely(numbers: Mapping[Story, int], eta: float) -> dict[Story, float]:
    """How likely a pair of each story is relevant; `numbers`: how many pairs have it."""
    if not numbers:
        return {}
    count = np.array(list(numbers.values()))
    ranks = np.array([rank for rank, *_ in numbers]) - 1
    clicks = np.array([clicked for _, clicked, *_ in numbers], dtype=np.float64)
    passed = [(number, *each) for number, story in enumerate(numbers) for each in Counter(story[2:]).items()]
    owner, position, times = np.array(passed, dtype=np.int64).reshape(-1, 3).T  # (positions without a click,) each
    looked = position.astype(np.float64) ** -eta
    shown = np.bincount(ranks, count, RANKS + 1)

    def total(of_each: Floats) -> Floats:
        return np.bincount(owner, times * of_each, minlength=len(count)).astype(np.float64)

    def attracts(pairs: Floats, rate: float, before: float) -> float:
        """Clicks by looks: who did not click looked with p (1 - rate) / (1 - p rate)."""
        looks = clicks + total(looked * (1 - rate) / (1 - looked * rate))
        says = pairs * weight
        return float((says @ clicks + MADE_UP * before) / (says @ looks + MADE_UP))

    weight = np.minimum(1, MOST_LOOKS / (clicks + total(looked)))
    a, b, share = ATTRACTS, OTHERS, np.full(RANKS + 1, SHARE)
    likely: Floats = share[ranks]
    for _ in range(ROUNDS):
        before = likely
        odds = np.log(share / (1 - share))[ranks] + clicks * np.log(a / b)
        odds += total(np.log1p(-a * looked) - np.log1p(-b * looked))
        likely = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
        if np.abs(likely - before).max() < SETTLED:
            break
        a, b = attracts(count * likely, a, ATTRACTS), attracts(count * (1 - likely), b, OTHERS)
        b = min(b, a / APART)
        share = (np.bincount(ranks, count * likely, RANKS + 1) + MADE_UP * SHARE) / (shown + MADE_UP)
    return dict(zip(numbers, likely.tolist(), strict=True))


def _judgment(search: LoggedSearch, passage_id: str, pair: _Pair) -> Judgment:
    return Judgment(
        sequence=0,
        id=id_of(search.query, passage_id),
        query_id=search.query_id,
        query=search.query,
        passage_id=passage_id,
        relevance=RELEVANT,
        lang=search.lang,
        first_judged_at=min(pair.clicked_at),
        judged_at=max(pair.clicked_at),
    )


def _counted(searches: Iterable[LoggedSearch], per_key: int) -> Iterable[LoggedSearch]:
    """All, but of a key's day with more than `per_key` clicks a sample that has about so many.

    Ids of searches are random, so those up to an id are a sample of the searches that is drawn alike from those with
    and without clicks: estimates stay unbiased, and a flood from one key weighs no more than `per_key` clicks.
    """
    of_day: dict[tuple[str | None, int], list[LoggedSearch]] = defaultdict(list)
    for search in searches:
        of_day[search.key, int(search.at // DAY_S)].append(search)
    for of_key in of_day.values():
        clicked = 0
        for search in sorted(of_key, key=lambda each: each.search_id):
            clicked += len(search.clicks)
            if clicked > per_key:
                break
            yield search
