"""From clicks to judgments, with the bias of the position taken out.

People look at the first hits most, and click on what they look at. By the examination hypothesis a passage shown at
rank k is looked at with a probability p(k), its *propensity*, and clicked if it is looked at and found relevant. So a
click divided by its propensity, averaged over all the times that the passage was shown for the query, is an unbiased
estimate of its relevance (inverse propensity scoring: Joachims, Swaminathan, Schnabel, "Unbiased Learning-to-Rank with
Biased Feedback", WSDM 2017):

    relevance(query, passage) = mean over its impressions of  clicked * min(1 / p(rank), MAX_WEIGHT)
    p(rank) = 1 / rank ** eta

Clipping the weights trades a little bias for bounded variance. The power law is that of their simulated users; eta 0
means no bias, and the larger it is, the less people look beyond the first hits.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.registry import Judgment, LoggedSearch
from app.registry.judgments import id_of

MAX_WEIGHT = 10.0
MIN_RELEVANCE = 0.2  # of a pair that is taken for relevant
RELEVANT = 1
DAY_S = 24 * 3600.0


@dataclass(kw_only=True, slots=True)
class _Pair:
    """A query and a passage: how often it was shown, and the weights of its clicks."""

    shown: int = 0
    weight: float = 0.0
    clicked_at: list[float] = field(default_factory=list)

    @property
    def relevance(self) -> float:
        return self.weight / self.shown


def weight(position: int, eta: float) -> float:
    """The inverse of the propensity of a position (from 1), clipped."""
    return float(min(position**eta, MAX_WEIGHT))


def to_judgments(searches: Sequence[LoggedSearch], *, eta: float, per_key: int) -> list[Judgment]:
    """The pairs that clicks say are relevant, in the order of their first click, as judgments of grade 1.

    `per_key`: so many clicks of a key in one day count at most; of a key with more, a sample. What was shown and left
    alone is no judgment: it may not have been looked at.
    """
    pairs: dict[tuple[str, str], _Pair] = defaultdict(_Pair)
    said: dict[str, LoggedSearch] = {}
    for search in _counted(searches, per_key):
        positions = {click.passage_id: click for click in search.clicks}
        for passage_id in search.shown:
            pair = pairs[search.query_id, passage_id]
            pair.shown += 1
            if click := positions.get(passage_id):
                pair.weight += weight(click.position, eta)
                pair.clicked_at.append(click.at)
        if search.query_id not in said or search.lang is not None:
            said[search.query_id] = search  # the newest word on its language
    found = [
        _judgment(said[query_id], passage_id, pair)
        for (query_id, passage_id), pair in pairs.items()
        if pair.clicked_at and pair.relevance >= MIN_RELEVANCE
    ]
    return sorted(found, key=lambda each: (each.first_judged_at, each.id))


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
