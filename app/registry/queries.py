"""The query log: what was asked and which passages were shown, and which of them were clicked.

Rows leave by age and number (`trim`), and their clicks with them.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, or_, select

from app.errors import InvalidField, SearchNotFound
from app.registry.clock import now
from app.registry.database import Database
from app.registry.judgments import Revision, id_of
from app.registry.tables import clicks, query_log

TRIMMED_AT_ONCE = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSearch:
    """`shown` are ids of passages, best first; `offset` hits came before the first of them."""

    search_id: str
    key: str | None
    query: str  # its white space made single
    lang: str | None
    filter: dict[str, Any] | None
    encoder: str
    generation: int | None
    offset: int
    shown: list[str]
    mode: str | None = None  # None: kept before modes were
    rule: str | None = None
    route: str | None = None  # that took it
    teams: str | None = None  # whose pick each of the first of `shown` is, where two encoders' hits were interleaved
    unit: str | None = None  # who asked, as far as a canary told requests apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Click:
    passage_id: str
    position: int  # from 1, over all pages
    at: float
    team: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedSearch(NewSearch):
    sequence: int
    at: float
    query_id: str
    clicks: tuple[Click, ...]


class QueryRecords:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, searches: Sequence[tuple[NewSearch, float]]) -> None:
        """Keep them, each with its age in seconds."""
        with self._database.write(shared=True) as connection:
            at = connection.execute(select(now())).scalar_one()
            rows = [asdict(each) | {"query_id": id_of(each.query), "at": at - age_s} for each, age_s in searches]
            connection.execute(insert(query_log), rows)

    def find(self, search_id: str) -> LoggedSearch:
        """Raises `SearchNotFound`."""
        found = self._read(select(query_log).where(query_log.c.search_id == search_id))
        if not found:
            raise _not_found(search_id)
        return found[0]

    def page(
        self,
        limit: int,
        *,
        before: int | None = None,
        since: float | None = None,
        key: str | None = None,
        first_pages: bool = False,
        by_vectors: bool = False,
    ) -> list[LoggedSearch]:
        """Newest first, those older than the sequence `before`, from the time `since` on, of one key or of all.

        `first_pages`: but for those that went on with an answer. `by_vectors`: but for those by words.
        """
        wanted = [query_log.c.sequence < before] if before is not None else []
        wanted += [query_log.c.at >= since] if since is not None else []
        wanted += [query_log.c.key == key] if key is not None else []
        wanted += [query_log.c.offset == 0] if first_pages else []
        dense = or_(query_log.c.mode.is_(None), query_log.c.mode == "dense")
        wanted += [dense] if by_vectors else []
        return self._read(select(query_log).where(*wanted).order_by(query_log.c.sequence.desc()).limit(limit))

    def count(self) -> int:
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(query_log)).scalar_one()

    def click(self, search_id: str, clicked: Sequence[tuple[str, int]]) -> int:
        """Keep clicks, (passage id, position), on what this search showed, each once. How many were new.

        Raises `SearchNotFound`, and `InvalidField` for what was not shown, or not there; then nothing is kept.
        """
        with self._database.write(shared=True) as connection:
            this = select(query_log).where(query_log.c.search_id == search_id).with_for_update()
            row = connection.execute(this).one_or_none()
            if row is None:
                raise _not_found(search_id)
            _check_shown(clicked, row.shown, row.offset)
            known = set(connection.scalars(select(clicks.c.passage_id).where(clicks.c.search_id == search_id)))
            new = [
                {
                    "search_id": search_id,
                    "passage_id": passage_id,
                    "position": position,
                    "team": (row.teams or "")[position - row.offset - 1 : position - row.offset] or None,
                    "at": now(),
                }
                for passage_id, position in dict(clicked).items()
                if passage_id not in known
            ]
            for values in new:
                connection.execute(insert(clicks).values(values))
            return len(new)

    def delete(self, search_id: str) -> None:
        """Forget a search and its clicks. Raises `SearchNotFound`."""
        with self._database.write() as connection:
            gone = connection.execute(delete(query_log).where(query_log.c.search_id == search_id))
        if gone.rowcount == 0:
            raise _not_found(search_id)

    def trim(self, *, max_age_s: float, max_rows: int) -> int:
        """Remove what is older than `max_age_s`, and all but the newest `max_rows`; how many clicks went with it."""
        oldest = self._database.now() - max_age_s
        removed = 0
        with self._database.read() as connection:
            newest = connection.execute(select(func.max(query_log.c.sequence))).scalar_one() or 0
        gone = (query_log.c.at < oldest) | (query_log.c.sequence <= newest - max_rows)
        some = select(query_log.c.sequence).where(gone).order_by(query_log.c.sequence).limit(TRIMMED_AT_ONCE)
        while True:
            with self._database.read() as connection:
                sequences = list(connection.scalars(some))
            if not sequences:
                return removed
            with self._database.write() as connection:
                these = query_log.c.sequence.in_(sequences)
                clicked = select(func.count()).select_from(clicks.join(query_log)).where(these)
                removed += connection.execute(clicked).scalar_one()
                connection.execute(delete(query_log).where(these))

    def count_clicks(self, since: float | None) -> int:
        """How many came after `since`; None: all."""
        wanted = [clicks.c.at > since] if since is not None else []
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(clicks).where(*wanted)).scalar_one()

    def clicked_revision(self) -> Revision:
        """Equal where no click came or went in between."""
        with self._database.read() as connection:
            newest, count = connection.execute(select(func.max(clicks.c.sequence), func.count())).one()
        return Revision(sequence=newest or 0, count=count)

    def searches_for_what_was_clicked(self) -> list[LoggedSearch]:
        """All searches for queries of which some search was clicked, in their order, up to the newest click."""
        of = select(query_log.c.query_id).join(clicks, clicks.c.search_id == query_log.c.search_id)
        until = select(func.max(clicks.c.at)).scalar_subquery()
        wanted = query_log.c.query_id.in_(of), query_log.c.at <= until
        return self._read(select(query_log).where(*wanted).order_by(query_log.c.sequence))

    def _read(self, query: Select[Any]) -> list[LoggedSearch]:
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            clicked: dict[str, list[Click]] = {}
            ids = [row.search_id for row in rows]
            for start in range(0, len(ids), TRIMMED_AT_ONCE):
                some = clicks.c.search_id.in_(ids[start : start + TRIMMED_AT_ONCE])
                for each in connection.execute(select(clicks).where(some).order_by(clicks.c.sequence)):
                    found = Click(passage_id=each.passage_id, position=each.position, at=each.at, team=each.team)
                    clicked.setdefault(each.search_id, []).append(found)
        return [_record(row, clicked.get(row.search_id, ())) for row in rows]


def _check_shown(clicked: Sequence[tuple[str, int]], shown: Sequence[str], offset: int) -> None:
    places = {passage_id: place for place, passage_id in enumerate(shown, offset + 1)}
    for number, (passage_id, position) in enumerate(clicked):
        if passage_id not in places:
            raise InvalidField(
                f"clicks.{number}.passage_id",
                f"{passage_id!r} is not among the {len(shown)} hits that are kept of this search; send what was "
                "clicked in its own answer.",
            )
        if position != places[passage_id]:
            raise InvalidField(
                f"clicks.{number}.position",
                f"{passage_id!r} was shown at {places[passage_id]}, not at {position}; they count from 1, over pages.",
            )


def _not_found(search_id: str) -> SearchNotFound:
    return SearchNotFound(
        f"The query log holds no search {search_id!r}: it is unknown, or it left the log by its age or number "
        "(ADIABAT_QUERY_LOG_DAYS, ADIABAT_QUERY_LOG_ROWS)."
    )


def _record(row: Row[Any], clicked: Collection[Click]) -> LoggedSearch:
    return LoggedSearch(**row._asdict(), clicks=tuple(clicked))
