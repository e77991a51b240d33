"""Idempotency keys: which call a client has already asked for under a key of its own, and what it was answered.

A key is kept for a day. One without an answer belongs to a call that is still running.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update

from app.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from app.registry.clock import now
from app.registry.database import Database
from app.registry.instances import LEASE_S
from app.registry.tables import idempotency_keys, instances

KEPT_S = 24 * 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a call answered: enough to answer it again."""

    status: int
    body: dict[str, Any]
    location: str


# Keeps an answer in the transaction of what the call did: a crash leaves both of them or neither.
Keep = Callable[[Connection, Answer], None]


class IdempotencyKeys:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.instance: str | None = None  # this service's id, where it is one of several

    def begin(self, call: str, key: str, fingerprint: str) -> Answer | None:
        """What this key was answered before; None for a new one, which is then the caller's to finish or forget.

        `fingerprint` stands for everything that was sent. Raises `IdempotencyKeyReused` where it differs, and
        `IdempotencyKeyInUse` while the first call is running.
        """
        with self._database.write() as connection:
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now() - KEPT_S))
            row = connection.execute(select(idempotency_keys).where(_this(call, key))).one_or_none()
            if row is not None and row.answer is None and _is_orphan(connection, row.instance):
                connection.execute(delete(idempotency_keys).where(_this(call, key)))
                row = None
            if row is None:
                connection.execute(
                    insert(idempotency_keys).values(
                        call=call, key=key, fingerprint=fingerprint, created_at=now(), instance=self.instance
                    )
                )
                return None
        if row.fingerprint != fingerprint:
            raise IdempotencyKeyReused(
                f"The Idempotency-Key {key!r} came before with another body; send a new key with a new request."
            )
        if row.answer is None:
            raise IdempotencyKeyInUse(
                f"The first request with the Idempotency-Key {key!r} is still running; repeat it a little later."
            )
        return Answer(**row.answer)

    @staticmethod
    def finish(call: str, key: str, connection: Connection, answer: Answer) -> None:
        """Note what the key is answered from now on, in the transaction of `connection`."""
        said = {"status": answer.status, "body": answer.body, "location": answer.location}
        connection.execute(update(idempotency_keys).where(_this(call, key)).values(answer=said))

    def forget(self, call: str, key: str) -> None:
        """The call was refused, so that the key may be used again once the cause is mended. An answer is kept."""
        with self._database.write() as connection:
            unfinished = idempotency_keys.c.answer.is_(None)
            connection.execute(delete(idempotency_keys).where(_this(call, key), unfinished))

    def forget_unfinished(self) -> None:
        """At start: a call that a dead process was busy with will never finish. Those of other services stay."""
        with self._database.write() as connection:
            unfinished = idempotency_keys.c.answer.is_(None)
            connection.execute(delete(idempotency_keys).where(unfinished, idempotency_keys.c.instance.is_(None)))


def _this(call: str, key: str) -> Any:
    return and_(idempotency_keys.c.call == call, idempotency_keys.c.key == key)


def _is_orphan(connection: Connection, instance: str | None) -> bool:
    """Whether the service that worked on a key is gone. One that is alone finds what it left at its start."""
    if instance is None:
        return False
    alive = instances.c.seen_at > now() - LEASE_S
    return connection.execute(select(instances.c.id).where(instances.c.id == instance, alive)).first() is None
