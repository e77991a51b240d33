"""What the replay of logged queries asks: written down for the trainer when its evaluation is prepared.

    {"searches", "left_out", "queries": [{"query", "lang", "filter", "times", "relevant"}], "filters": [[id, …], …]}

A query's `filter` is a place in `filters`, which holds the ids that the store lets through; `relevant` is what was
judged explicitly. Clicks are left out: they can only be on what the encoder of then showed, and would speak for it.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from app.errors import InvalidField, UnsupportedFilter
from app.passages import PassageStore, parse_filter
from app.passages.disk import write_whole
from app.registry import LoggedSearch, Registry
from app.registry.judgments import id_of

if TYPE_CHECKING:
    from qdrant_client.models import Filter

MAX_FILTERS = 50  # the most frequent ones; queries with others are left out,
MAX_IDS = 1_000_000  # and so are those behind which there are more passages, of all filters together
PAGE = 1_000

Asked = tuple[str, str, str]  # query, language, filter as JSON


def write_replay(file: Path, registry: Registry, store: PassageStore, *, since: float | None, limit: int) -> None:
    """The newest `limit` searches of the log by vectors, first pages alone, from `since` on.

    Those by words are left out: what an encoder would change in them, vectors alone cannot tell.
    """
    searches = registry.queries.page(limit, since=since, first_pages=True)
    by_words = sum(each.mode not in (None, "dense") for each in searches)
    if by_words:  # in place of these, older ones
        searches = registry.queries.page(limit, since=since, first_pages=True, by_vectors=True)
    times = Counter(map(_asked, searches))
    filters = _filters(times, store)
    relevant = _relevant(registry)
    served = {asked: count for asked, count in times.items() if not asked[2] or asked[2] in filters}
    queries = [
        {
            "query": query,
            "lang": lang,
            "filter": list(filters).index(filter) if filter else None,
            "times": count,
            "relevant": relevant.get(id_of(query), []),
        }
        for (query, lang, filter), count in served.items()
    ]
    kept = sum(served.values())
    said = {
        "searches": kept,
        "left_out": by_words + len(searches) - kept,
        "queries": queries,
        "filters": list(filters.values()),
    }
    write_whole(file, orjson.dumps(said))


def _asked(search: LoggedSearch) -> Asked:
    filter = json.dumps(search.filter, sort_keys=True) if search.filter else ""
    return search.query, search.lang or "", filter


def _filters(times: Counter[Asked], store: PassageStore) -> dict[str, list[str]]:
    """The ids behind each filter, of those that can still be served."""
    used: Counter[str] = Counter()
    for (_, _, filter), count in times.items():
        if filter:
            used[filter] += count
    found, room = dict[str, list[str]](), MAX_IDS
    for filter, _ in used.most_common(MAX_FILTERS):
        try:
            conditions = parse_filter(json.loads(filter))
            if store.count(conditions) <= room:
                found[filter] = list(_ids(store, conditions))
                room -= len(found[filter])
        except (InvalidField, UnsupportedFilter):
            continue
    return found


def _ids(store: PassageStore, conditions: "Filter | None") -> Iterable[str]:
    cursor = None
    while True:
        page, cursor = store.page(cursor, PAGE, conditions)
        yield from (each.passage.id for each in page)
        if cursor is None:
            return


def _relevant(registry: Registry) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in registry.judgments.all():
        if each.relevance:
            found.setdefault(each.query_id, []).append(each.passage_id)
    return found
