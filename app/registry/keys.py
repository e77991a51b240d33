"""The keys that callers have: a name, a scope, limits, and a hash of the secret. Knows no token and no hashing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, insert, or_, select, update

from app.errors import Conflict, KeyExists, KeyNotFound, LastAdminKey
from app.registry.audit import Action, record
from app.registry.database import Database
from app.registry.tables import api_keys

MAX_KEYS = 1_000  # each process holds all of them in memory
DAY_S = 24 * 3600


class Scope(StrEnum):
    SEARCH = "search"  # search, embed queries, read
    WRITE = "write"  # and put in what is searched, judged, tuned on and measured
    ADMIN = "admin"  # and decide what serves and who may call

    def covers(self, asked: "Scope") -> bool:
        """Each scope may do what the ones before it may."""
        order = list(Scope)
        return order.index(self) >= order.index(asked)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewKey:
    name: str
    id: str
    hash: str
    scope: Scope
    rate_per_s: float | None = None
    burst: int | None = None
    daily: int | None = None
    expires_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRecord:
    sequence: int
    name: str
    id: str
    hash: str
    scope: Scope
    rate_per_s: float | None
    burst: int | None
    daily: int | None
    created_at: float
    expires_at: float | None
    used_at: float | None
    used_on: int
    used: int

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def used_on_day_of(self, now: float) -> int:
        """Requests of that day, as far as they are written down."""
        return self.used if self.used_on == day_of(now) else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class KeysRevision:
    """Equal where no key was made or revoked in between."""

    sequence: int
    count: int


def day_of(at: float) -> int:
    """Days since 1970, in UTC."""
    return int(at // DAY_S)


class Keys:
    def __init__(self, database: Database) -> None:
        self._database = database

    def make(self, new: NewKey, *, needs_admin: bool) -> KeyRecord:
        """Keep it. Raises `KeyExists`, `Conflict` where there are too many, and `LastAdminKey`.

        `needs_admin`: nothing but the keys here opens the service, so there must be an admin's among them: from the
        first one on, every call needs a key.
        """
        values = {field: getattr(new, field) for field in NewKey.__slots__}
        with self._database.write() as connection:
            if connection.scalar(select(api_keys.c.id).where(api_keys.c.name == new.name)) is not None:
                raise KeyExists(f"A key is named {new.name!r} already; revoke it first, or choose another name.")
            if (connection.scalar(select(func.count()).select_from(api_keys)) or 0) >= MAX_KEYS:
                raise Conflict(f"There are {MAX_KEYS} keys, and no more may be; revoke those that nobody uses.")
            lasting = new.scope is Scope.ADMIN and new.expires_at is None
            if needs_admin and not lasting and not _lasting_admin(connection):
                raise LastAdminKey(
                    "The first key must have the scope 'admin' and no end: from it on every call needs a key, and "
                    "nobody could make another. (Where ADIABAT_API_KEY is set any may be the first.)"
                )
            made = {"created_at": time.time(), "used_on": 0, "used": 0}
            row = connection.execute(insert(api_keys).values(values | made).returning(*api_keys.c)).one()
            limits = {name: values[name] for name in ("rate_per_s", "burst", "daily", "expires_at") if values[name]}
            record(connection, Action.KEY_MADE, new.name, scope=new.scope, id=new.id, **limits)
            return _record(row)

    def all(self) -> list[KeyRecord]:
        """By name, expired ones too."""
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.name))]

    def revoke(self, name: str, *, needs_admin: bool) -> None:
        """Raises `KeyNotFound`, and `LastAdminKey` where `needs_admin` and no other admin's key without an end is."""
        with self._database.write() as connection:
            gone = connection.execute(
                delete(api_keys).where(api_keys.c.name == name).returning(api_keys.c.id, api_keys.c.scope)
            ).one_or_none()
            if gone is None:
                raise KeyNotFound(f"No key is named {name!r}; GET /keys lists them.")
            if needs_admin and gone.scope == Scope.ADMIN and not _lasting_admin(connection):
                raise LastAdminKey(
                    f"{name!r} is the only admin key without an end, and nobody could make another: make one first, or "
                    "set ADIABAT_API_KEY where the service runs, or revoke it there ('adiabat keys revoke --data-dir')."
                )
            record(connection, Action.KEY_REVOKED, name, scope=gone.scope, id=gone.id)

    def has_admin(self) -> bool:
        """Whether one of them opens everything now."""
        alive = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > time.time())
        with self._database.read() as connection:
            found = select(api_keys.c.id).where(api_keys.c.scope == Scope.ADMIN, alive).limit(1)
            return connection.scalar(found) is not None

    def revision(self) -> KeysRevision:
        with self._database.read() as connection:
            newest, count = connection.execute(select(func.max(api_keys.c.sequence), func.count())).one()
        return KeysRevision(sequence=newest or 0, count=count)

    def spend(self, used: Mapping[str, int], at: float) -> None:
        """Add requests to the day of `at`, by id."""
        today = day_of(at)
        before = case((api_keys.c.used_on == today, api_keys.c.used), else_=0)
        with self._database.write() as connection:
            for key_id, count in used.items():
                values: dict[str, Any] = {"used": before + count, "used_on": today, "used_at": at}
                connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(values))


def _lasting_admin(connection: Connection) -> bool:
    wanted = (api_keys.c.scope == Scope.ADMIN, api_keys.c.expires_at.is_(None))
    return connection.scalar(select(api_keys.c.id).where(*wanted).limit(1)) is not None


def _record(row: Row[Any]) -> KeyRecord:
    return KeyRecord(**row._asdict() | {"scope": Scope(row.scope)})
