"""Experiments: every generation with a canary is one, and what the query log holds of its searches is counted here.

A search counts by its first page, where who asked was told apart: whoever says nothing always has the active encoder,
and would be compared with others. What was counted is kept, since searches leave the log.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Row, case, func, select

from app.errors import ExperimentNotFound
from app.registry.activations import Activation, to_activations, with_encoders
from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import activations, clicks, experiments, query_log

Role = Literal["active", "canary"]
ROLES: tuple[Role, Role] = ("active", "canary")
TEAMS: dict[Role, str] = {"active": "a", "canary": "c"}  # as in `query_log.teams`


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What one encoder was asked, and the sums over those who asked by which their habits are told from chance."""

    requests: int = 0
    users: int = 0
    clicked: int = 0  # requests of which something was clicked
    clicks: int = 0
    wins: int = 0  # of an interleaving: requests with more clicks on its hits than on the other's
    # Over users, of whom each has n requests of which c were clicked: sums of n^2, n c and c^2.
    squares: int = 0
    products: int = 0
    clicked_squares: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    active: Arm = Arm()
    canary: Arm = Arm()
    interleaved: bool = False  # both answered each request, and `clicked` and `clicks` are those on their own hits
    squares: int = 0  # of an interleaving: sum over users of (the canary's wins - the active encoder's)^2

    @property
    def requests(self) -> int:
        return self.active.requests + (0 if self.interleaved else self.canary.requests)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """The first look at which the test decided."""

    verdict: str
    requests: int
    at: float
    alpha: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentRecord:
    began: Activation  # its generation is the experiment's id
    ended: Activation | None
    tally: Tally
    decided: Decided | None
    settled: bool


class Experiments:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, generation: int) -> ExperimentRecord:
        """With what was counted last. Raises `ExperimentNotFound`."""
        found = self._page(1, activations.c.generation == generation)
        if not found:
            raise ExperimentNotFound(
                f"Generation {generation} is no experiment: those are the generations with a canary, "
                "GET /experiments lists them."
            )
        return found[0]

    def page(self, limit: int, *, before: int | None = None) -> list[ExperimentRecord]:
        """Newest first, those that began before the generation `before`."""
        return self._page(limit, *([activations.c.generation < before] if before is not None else []))

    def unsettled(self) -> list[ExperimentRecord]:
        """Those that go on, and those of which clicks may still come."""
        return self._page(100, func.coalesce(experiments.c.settled, 0) == 0)

    def count(self, generation: int, *, interleaved: bool) -> Tally:
        """What the query log holds of it now."""
        return self._count_interleaved(generation) if interleaved else self._count_split(generation)

    def _count_split(self, generation: int) -> Tally:
        clicked = select(func.count()).where(clicks.c.search_id == query_log.c.search_id).scalar_subquery()
        searches = (
            select(query_log.c.rule, query_log.c.unit, clicked.label("clicks"))
            .where(query_log.c.generation == generation, query_log.c.offset == 0)
            .where(query_log.c.rule.in_(ROLES), query_log.c.unit.is_not(None))
            .subquery()
        )
        with_click = func.sum(case((searches.c.clicks > 0, 1), else_=0))
        users = (
            select(
                searches.c.rule,
                func.count().label("n"),
                with_click.label("c"),
                func.sum(searches.c.clicks).label("clicks"),
            )
            .group_by(searches.c.rule, searches.c.unit)
            .subquery()
        )
        n, c = users.c.n, users.c.c
        sums = n, c, users.c.clicks, n * n, n * c, c * c
        with self._database.read() as connection:
            rows = connection.execute(
                select(users.c.rule, func.count(), *(func.sum(each) for each in sums)).group_by(users.c.rule)
            ).all()
        arms = {rule: _arm(*(int(each) for each in counted)) for rule, *counted in rows}
        return Tally(active=arms.get("active", Arm()), canary=arms.get("canary", Arm()))

    def _count_interleaved(self, generation: int) -> Tally:
        user = func.coalesce(query_log.c.unit, query_log.c.search_id)  # whoever says nothing is somebody else each time
        of = {role: func.sum(case((clicks.c.team == TEAMS[role], 1), else_=0)).label(role) for role in ROLES}
        searches = (
            select(user.label("user"), *of.values())
            .outerjoin(clicks, clicks.c.search_id == query_log.c.search_id)
            .where(query_log.c.generation == generation, query_log.c.offset == 0, query_log.c.rule == "interleaved")
            .group_by(query_log.c.search_id, user)
            .subquery()
        )
        active, canary = searches.c.active, searches.c.canary
        wins = (active > canary, canary > active)
        counted = (active > 0, canary > 0, *wins)
        sums = [func.sum(case((each, 1), else_=0)) for each in counted] + [func.sum(active), func.sum(canary)]
        users = (
            select(func.count().label("n"), *(each.label(f"s{place}") for place, each in enumerate(sums)))
            .group_by(searches.c.user)
            .subquery()
        )
        lead = users.c.s3 - users.c.s2
        totals = [users.c.n, *(users.c[f"s{place}"] for place in range(len(sums))), lead * lead]
        with self._database.read() as connection:
            found = connection.execute(select(func.count(), *(func.sum(each) for each in totals))).one()
        count, n, with_a, with_c, wins_a, wins_c, clicks_a, clicks_c, squares = (int(each or 0) for each in found)
        return Tally(
            active=Arm(requests=n, users=count, clicked=with_a, clicks=clicks_a, wins=wins_a),
            canary=Arm(requests=n, users=count, clicked=with_c, clicks=clicks_c, wins=wins_c),
            interleaved=True,
            squares=squares,
        )

    def keep(self, generation: int, tally: Tally, decided: Decided | None, *, settled: bool) -> None:
        values = {
            "tally": asdict(tally),
            "decided": asdict(decided) if decided else None,
            "settled": int(settled),
            "at": now(),
        }
        with self._database.write() as connection:
            connection.execute(self._database.upsert(experiments, {"generation": generation}, values))

    def _page(self, limit: int, *conditions: Any) -> list[ExperimentRecord]:
        kept = experiments.c.tally, experiments.c.decided, experiments.c.settled
        later = activations.alias()  # a route may have been changed in between
        following = select(func.min(later.c.generation)).where(later.c.generation > activations.c.generation)
        began = (
            with_encoders(select(activations, *kept, following.scalar_subquery().label("next")))
            .outerjoin(experiments, experiments.c.generation == activations.c.generation)
            .where(activations.c.canary_id.is_not(None), *conditions)
            .order_by(activations.c.generation.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(began).all()
            nexts = [row.next for row in rows if row.next is not None]
            ended = with_encoders(select(activations)).where(activations.c.generation.in_(nexts))
            after = {each.generation: each for each in to_activations(connection.execute(ended))}
        return [_record(row, after.get(row.next)) for row in rows]


def _arm(users: int, requests: int, clicked: int, clicks: int, squares: int, products: int, of_clicked: int) -> Arm:
    return Arm(
        users=users,
        requests=requests,
        clicked=clicked,
        clicks=clicks,
        squares=squares,
        products=products,
        clicked_squares=of_clicked,
    )


def _record(row: Row[Any], ended: Activation | None) -> ExperimentRecord:
    said: dict[str, Any] = row.tally or {"interleaved": bool(row.canary_interleave)}
    tally = said | {role: Arm(**said.get(role, {})) for role in ROLES}
    return ExperimentRecord(
        began=next(iter(to_activations([row]))),
        ended=ended,
        tally=Tally(**tally),
        decided=Decided(**row.decided) if row.decided else None,
        settled=bool(row.settled),
    )
