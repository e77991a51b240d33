"""The built-in dataset `judgments`: what users said of answers, in BEIR shape and split by time.

Queries are put in the order of their first judgment. Of those that have a relevant passage the newest fifth is `dev`,
so that the questions of tomorrow test what was tuned on those of yesterday; as newer ones come, the others move over
to `train`. What was judged explicitly counts before what clicks say (`app.clicks`).
"""

import json
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.beir import QRELS_HEAD, QUERIES, counted, digest_of
from app.clicks import to_judgments
from app.errors import BadDataset, DatasetNotFound
from app.recipe import MIN_PAIRS
from app.registry import Judgment, Registry, Revision

NAME = "judgments"
TRAIN, DEV = "train", "dev"
ONE_IN = 5  # queries are dev


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What the judgments of one moment are as a dataset; `files` are UTF-8, by their name in its folder."""

    files: Mapping[str, bytes]
    digest: str
    counts: dict[str, Any]  # as `app.beir.check` counts the files
    pairs: int  # of the split train that say relevant
    passage_ids: tuple[str, ...]  # each once, in the order in which they were first judged
    newest: float
    first_judged_at: tuple[float, ...]  # of each pair, the oldest first

    def new_since(self, at: float | None) -> int:
        """How many pairs were first judged after `at`; None: all."""
        return len(self.first_judged_at) - (0 if at is None else bisect_right(self.first_judged_at, at))

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

    def require_split(self, split: str) -> None:
        """Raises `BadDataset`."""
        if split not in self.counts["splits"]:
            raise BadDataset(
                f"The dataset '{NAME}' has no split {split!r} but {' and '.join(self.counts['splits'])}. Its newest "
                f"queries are '{DEV}' as soon as two have a relevant passage, all others '{TRAIN}': send more by "
                "POST /judgments."
            )

    def require_pairs(self) -> None:
        """Raises `BadDataset` where a tuning would be refused whatever is stored."""
        if self.pairs < MIN_PAIRS:
            raise BadDataset(
                f"The split '{TRAIN}' of the dataset '{NAME}' has {self.pairs} of the {MIN_PAIRS} pairs of a query and "
                "a relevant passage that a tuning needs: send more by POST /judgments."
            )


class JudgedNow:
    """Makes the content anew only where something was judged, clicked or taken back since."""

    def __init__(self, registry: Registry, *, eta: float, per_key: int) -> None:
        self._registry = registry
        self._eta = eta
        self._per_key = per_key
        self._making = threading.Lock()
        self._made: tuple[tuple[Revision, Revision], Content] | None = None

    def content(self) -> Content:
        """Raises `DatasetNotFound` where nothing is judged."""
        with self._making:
            revision = self._registry.judgments.revision(), self._registry.queries.clicked_revision()
            if self._made is None or self._made[0] != revision:
                found = self._found()
                if not found:
                    raise DatasetNotFound(f"The built-in dataset '{NAME}' is empty; POST /judgments fills it.")
                self._made = revision, to_content(found)
            return self._made[1]

    def _found(self) -> list[Judgment]:
        """What came between the look at the revision and this is in it: the next look makes it anew."""
        searches = self._registry.queries.searches_for_what_was_clicked()
        found = {each.id: each for each in to_judgments(searches, eta=self._eta, per_key=self._per_key)}
        for each in self._registry.judgments.all():
            first = min(each.first_judged_at, found.get(each.id, each).first_judged_at)
            found[each.id] = replace(each, first_judged_at=first)
        return list(found.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Query:
    """A query and all that was said of it, oldest pair first."""

    said: Sequence[Judgment]

    @property
    def text(self) -> str:
        return self.said[0].query

    @property
    def asked_at(self) -> float:
        return self.said[0].first_judged_at

    @property
    def lang(self) -> str:
        """The newest word on it, "" where there is none."""
        newest = max(self.said, key=lambda each: (each.lang is not None, each.sequence))
        return newest.lang or ""

    def line(self) -> str:
        metadata = {"metadata": {"lang": self.lang}} if self.lang else {}
        return json.dumps({"_id": self.said[0].query_id, "text": self.text, **metadata}, ensure_ascii=False) + "\n"

    def qrels(self) -> str:
        return "".join(f"{each.query_id}\t{each.passage_id}\t{each.relevance}\n" for each in self.said)


def to_content(judgments: Sequence[Judgment]) -> Content:
    """The same judgments give the same bytes."""
    split = _split(_queries(judgments))
    files = {QUERIES: "".join(query.line() for part in split.values() for query in part)}
    files |= {
        f"qrels/{name}.tsv": QRELS_HEAD + "".join(query.qrels() for query in part) for name, part in split.items()
    }
    encoded = {name: text.encode() for name, text in files.items()}
    return Content(
        files=encoded,
        digest=digest_of(encoded),
        counts=_counts(split),
        pairs=sum(each.relevance > 0 for query in split[TRAIN] for each in query.said),
        passage_ids=tuple(dict.fromkeys(each.passage_id for each in _in_order(judgments))),
        newest=max(each.judged_at for each in judgments),
        first_judged_at=tuple(each.first_judged_at for each in _in_order(judgments)),
    )


def _in_order(judgments: Sequence[Judgment]) -> list[Judgment]:
    return sorted(judgments, key=lambda each: (each.first_judged_at, each.id))


def _queries(judgments: Sequence[Judgment]) -> list[_Query]:
    """By the time of their first judgment."""
    said: dict[str, list[Judgment]] = {}
    for each in _in_order(judgments):
        said.setdefault(each.query_id, []).append(each)
    return [_Query(said=each) for each in said.values()]


def _split(queries: Sequence[_Query]) -> dict[str, list[_Query]]:
    """Spellings that differ in case alone are in one split: a tuning takes them for one text.

    A query of which nothing is said but grade 0 trains and tests nothing: it goes where its time puts it.
    """
    asked: dict[str, list[_Query]] = {}
    for query in queries:
        asked.setdefault(query.text.casefold(), []).append(query)
    groups = list(asked.values())
    relevant = [
        place for place, group in enumerate(groups) if any(each.relevance for query in group for each in query.said)
    ]
    newest = max(1, len(relevant) // ONE_IN) if len(relevant) > 1 else 0
    cut = relevant[-newest] if newest else len(groups)
    split = {TRAIN: groups[:cut], DEV: groups[cut:]}
    return {name: [query for group in part for query in group] for name, part in split.items() if part}


def _counts(split: Mapping[str, Sequence[_Query]]) -> dict[str, Any]:
    queries = [query for part in split.values() for query in part]
    return {
        "queries": len(queries),
        "languages": counted(query.lang for query in queries),
        "passages": None,
        "splits": {
            name: {
                "queries": len(part),
                "pairs": sum(len(query.said) for query in part),
                "languages": counted(query.lang for query in part),
            }
            for name, part in sorted(split.items())
        },
    }
