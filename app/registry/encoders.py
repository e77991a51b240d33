"""The encoders that are registered: immutable versions, found by `name@version`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, String, cast, func, insert, select, update

from app.errors import EncoderInUse, EncoderNotFound
from app.registry.activations import roles
from app.registry.audit import Action
from app.registry.audit import record as audited
from app.registry.clock import now
from app.registry.database import Database
from app.registry.tables import encoders


class Admission(StrEnum):
    VERIFIED = "verified"  # its lineage names the collection's base
    PROBED = "probed"  # no lineage, but it agrees with the base on probe texts
    FORCED = "forced"  # somebody said force=true


class EncoderState(StrEnum):
    READY = "ready"  # may become active
    REJECTED = "rejected"  # its gate said no; only force activates it
    BROKEN = "broken"  # its artifact does not load or verify any more
    DELETED = "deleted"  # the artifact is gone, the history still names it


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderRecord:
    id: int
    name: str
    version: int
    digest: str
    base_digest: str | None
    parent_digest: str | None
    admission: Admission
    state: EncoderState
    size_bytes: int
    description: str
    labels: dict[str, str]
    metrics: dict[str, Any]
    checks: list[dict[str, Any]]
    created_at: float

    @property
    def key(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEncoder:
    """What registration knows before the encoder has a version."""

    name: str
    digest: str
    base_digest: str | None
    parent_digest: str | None
    admission: Admission
    state: EncoderState = EncoderState.READY
    size_bytes: int
    description: str = ""
    labels: dict[str, str]
    metrics: dict[str, Any]
    checks: list[dict[str, Any]]


# (connection, the record, whether it is new)
AlsoOfEncoder = Callable[[Connection, EncoderRecord, bool], None]


class Encoders:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        new: NewEncoder,
        place: Callable[[str], None],
        also: AlsoOfEncoder | None = None,
        first: Callable[[Connection], None] | None = None,
    ) -> tuple[EncoderRecord, bool]:
        """Register `new` under the name's next version; `place(key)` must put the artifact where it belongs.

        Both happen inside one write transaction: an artifact without a row can only be what a crash left. `also` is
        done in it too, for a new one and an existing one. `first` comes before anything and may refuse by raising.
        Returns the record and whether it is new: the same name, digest and state again is the existing one.
        The same weights with another verdict of a gate are another version: no verdict is ever overwritten.
        """
        with self._database.write() as connection:
            if first is not None:
                first(connection)
            same = (encoders.c.name == new.name, encoders.c.digest == new.digest, encoders.c.state == new.state)
            existing = _alive(connection, *same)
            if existing:
                if also is not None:
                    also(connection, existing[-1], False)
                return existing[-1], False
            newest = connection.scalar(select(func.max(encoders.c.version)).where(encoders.c.name == new.name))
            version = (newest or 0) + 1
            place(f"{new.name}@{version}")
            values = {field: getattr(new, field) for field in NewEncoder.__slots__}
            row = connection.execute(
                insert(encoders).values(**values, version=version, created_at=now()).returning(*encoders.c)
            ).one()
            record = _record(row)
            outcome = "forced" if record.admission is Admission.FORCED else "done"
            audited(connection, Action.ENCODER_REGISTERED, record.key, outcome=outcome, digest=record.digest)
            if also is not None:
                also(connection, record, True)
            return record, True

    def get(self, name: str, version: int | None = None) -> EncoderRecord:
        """`name@version`, deleted or not; no version: the newest ready one. Raises `EncoderNotFound`."""
        with self._database.read() as connection:
            if version is not None:
                row = connection.execute(
                    select(encoders).where(encoders.c.name == name, encoders.c.version == version)
                ).one_or_none()
                if row is None:
                    raise EncoderNotFound(f"No encoder {name}@{version} is registered; GET /encoders lists them.")
                return _record(row)
            alive = _alive(connection, encoders.c.name == name)
        if not alive:
            raise EncoderNotFound(f"No encoder named {name!r} is registered; GET /encoders lists them.")
        ready = [record for record in alive if record.state is EncoderState.READY]
        return (ready or alive)[-1]

    def by_id(self, encoder_id: int) -> EncoderRecord:
        with self._database.read() as connection:
            return _record(connection.execute(select(encoders).where(encoders.c.id == encoder_id)).one())

    def find(self, key: str) -> EncoderRecord:
        """By `name` or `name@version`, as requests write it."""
        return self.get(*parse_key(key))

    def versions(self, name: str) -> list[EncoderRecord]:
        with self._database.read() as connection:
            return _alive(connection, encoders.c.name == name)

    def all(self, limit: int | None = None, offset: int = 0, containing: str = "") -> list[EncoderRecord]:
        """By name and version; those whose key has `containing` in it."""
        key = encoders.c.name + "@" + cast(encoders.c.version, String)
        wanted = (key.contains(containing.lower(), autoescape=True),) if containing else ()
        with self._database.read() as connection:
            return _alive(connection, *wanted, limit=limit, offset=offset)

    def set_state(self, encoder_id: int, state: EncoderState) -> None:
        with self._database.write() as connection:
            _set_state(connection, encoder_id, state)

    def delete(self, encoder_id: int) -> None:
        """Raises `EncoderInUse` where it is active, canary, previous or a route's: another service may have switched
        just now."""
        with self._database.write() as connection:
            if encoder_id in roles(connection):
                raise EncoderInUse("The encoder was activated while it was being deleted; activate another first.")
            _set_state(connection, encoder_id, EncoderState.DELETED)

    def sweep(self, keys_on_disk: Iterable[str], set_aside: Callable[[str], None]) -> list[str]:
        """Set aside artifacts that no living row names. In a write transaction nobody can be placing one."""
        with self._database.write() as connection:
            alive = {record.key for record in _alive(connection)}
            orphans = sorted(set(keys_on_disk) - alive)
            for key in orphans:
                set_aside(key)
        return orphans


def parse_key(key: str) -> tuple[str, int | None]:
    name, separator, version = key.rpartition("@")
    if not separator:
        return key, None
    if not version.isdecimal() or len(version) > 9:
        raise EncoderNotFound(f"{key!r} is not an encoder: write 'name' or 'name@version' with an integer version.")
    return name, int(version)


def _set_state(connection: Connection, encoder_id: int, state: EncoderState) -> None:
    this = encoders.c.id == encoder_id
    changed = update(encoders).where(this, encoders.c.state != state).values(state=state).returning(*encoders.c)
    row = connection.execute(changed).one_or_none()
    if row is not None and state is EncoderState.DELETED:
        audited(connection, Action.ENCODER_DELETED, _record(row).key, digest=row.digest)


def _alive(connection: Connection, *conditions: Any, limit: int | None = None, offset: int = 0) -> list[EncoderRecord]:
    query = select(encoders).where(encoders.c.state != EncoderState.DELETED, *conditions)
    query = query.order_by(encoders.c.name, encoders.c.version).limit(limit).offset(offset)
    return [_record(row) for row in connection.execute(query)]


def _record(row: Row[Any]) -> EncoderRecord:
    fields = row._asdict()
    fields["admission"] = Admission(fields["admission"])
    fields["state"] = EncoderState(fields["state"])
    return EncoderRecord(**fields)
