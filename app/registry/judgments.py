"""What users say of answers: how relevant a passage is to a query, the newest word on each pair of them."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, null, select

from app.errors import JudgmentNotFound
from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import judgments


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """Equal where nothing was judged or taken back in between."""

    sequence: int  # of the newest
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJudgment:
    query: str  # its white space made single
    passage_id: str
    relevance: int
    lang: str | None

    @property
    def query_id(self) -> str:
        return id_of(self.query)

    @property
    def id(self) -> str:
        """Of the pair, whatever is said of it."""
        return id_of(self.query, self.passage_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    sequence: int
    id: str
    query_id: str
    query: str
    passage_id: str
    relevance: int
    lang: str | None
    first_judged_at: float  # when the pair was judged for the first time
    judged_at: float


class Judgments:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, new: NewJudgment) -> tuple[Judgment, bool]:
        """Keep it in place of the former one on the same pair; the record, and whether the pair is new.

        The same again changes nothing.
        """
        values = {"query": new.query, "passage_id": new.passage_id, "relevance": new.relevance, "lang": new.lang}
        values |= {"id": new.id, "query_id": new.query_id}
        this = judgments.c.id == new.id
        with self._database.write() as connection:
            before = connection.execute(select(judgments).where(this)).one_or_none()
            if before is not None and (before.relevance, before.lang) == (new.relevance, new.lang):
                return _record(before), False
            connection.execute(delete(judgments).where(this))
            at = connection.execute(select(now())).scalar_one()
            first = at if before is None else before.first_judged_at
            values |= {"judged_at": at, "first_judged_at": first}
            insertion = insert(judgments).values(values).returning(*judgments.c)
            return _record(connection.execute(insertion).one()), before is None

    def delete(self, judgment_id: str) -> None:
        """Raises `JudgmentNotFound`."""
        with self._database.write() as connection:
            gone = connection.execute(delete(judgments).where(judgments.c.id == judgment_id))
        if gone.rowcount == 0:
            raise JudgmentNotFound(f"No judgment has the id {judgment_id!r}; GET /judgments lists them.")

    def page(
        self, limit: int, *, before: int | None = None, query: str | None = None, lang: str | None = None
    ) -> list[Judgment]:
        """Newest first, those older than the sequence `before`, of one query or of all; `lang` "": of none."""
        wanted = [judgments.c.sequence < before] if before is not None else []
        wanted += [judgments.c.lang == (lang or null())] if lang is not None else []
        found = select(judgments).where(*wanted, *_of(query)).order_by(judgments.c.sequence.desc()).limit(limit)
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(found)]

    def count(self, query: str | None = None) -> dict[str, int]:
        """How many there are of each language, the most first; "": of none."""
        counted = select(judgments.c.lang, func.count()).where(*_of(query)).group_by(judgments.c.lang)
        with self._database.read() as connection:
            found = [(lang or "", count) for lang, count in connection.execute(counted)]
        return dict(sorted(found, key=lambda each: (-each[1], each[0])))

    def all(self) -> list[Judgment]:
        """In the order in which they came, as of one moment."""
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(select(judgments).order_by(judgments.c.sequence))]

    def count_new(self, since: float | None) -> int:
        """How many pairs were first judged after `since`; None: all."""
        wanted = [judgments.c.first_judged_at > since] if since is not None else []
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(judgments).where(*wanted)).scalar_one()

    def revision(self) -> Revision:
        with self._database.read() as connection:
            newest, count = connection.execute(select(func.max(judgments.c.sequence), func.count())).one()
        return Revision(sequence=newest or 0, count=count)


def _of(query: str | None) -> list[Any]:
    return [] if query is None else [judgments.c.query_id == id_of(query)]


def id_of(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _record(row: Row[Any]) -> Judgment:
    return Judgment(**row._asdict())
