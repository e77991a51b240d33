"""Who holds a key: every request's question, answered from memory.

The registry's keys are in memory and looked at again before a request once they are half a second old, so what another
process revoked is refused within a second, and what this one revoked at once (`changed`). A token's secret is verified
by scrypt the first time it comes; from then on by a hash under a key that this process alone has, of which there is one
for each valid token. The methods are for the event loop, `changed` for any thread.
"""

import asyncio
import hmac
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from app.errors import AdiabatError, Overloaded, QuotaExceeded, RateLimited, Unavailable
from app.keys.bucket import TokenBucket
from app.keys.tokens import Token, parse_token, verifies
from app.registry.keys import DAY_S, KeyRecord, Keys, KeysRevision, Scope

log = logging.getLogger("adiabat.keys")

FRESH_S = 0.5
PATIENCE_S = 1.0  # with a look that takes longer
WITHOUT_REGISTRY_S = 60.0  # keys that were known go on opening for so long while the registry does not answer
WRITE_DOWN_S = 5.0
MAX_HASHING = 16
SERVICE_KEY = "ADIABAT_API_KEY"  # no key of the registry can be named so

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who a request comes from. `name` is None where the service asks for no key."""

    name: str | None
    scope: Scope
    id: str = ""  # of a key in the registry


ANYBODY = Holder(name=None, scope=Scope.ADMIN)
SERVICE = Holder(name=SERVICE_KEY, scope=Scope.ADMIN)


class KeyRing:
    """`service_key` is ADIABAT_API_KEY; `beyond_loopback`: a key is asked for even where there is none yet."""

    def __init__(self, keys: Keys, service_key: str | None, *, beyond_loopback: bool, secret: bytes) -> None:
        self.secret = secret  # of the console's sessions
        self._keys = keys
        self._service_key = service_key
        self._always_locked = service_key is not None or beyond_loopback
        self._records: dict[str, KeyRecord] = {}
        self._revision: KeysRevision | None = None
        self._read_at = -math.inf
        self._looked_at = -math.inf
        self._asked_at = -math.inf
        self._changes = 0
        self._reading: asyncio.Task[None] | None = None
        self._memory_key = secrets.token_bytes(32)
        self._verified: dict[bytes, str] = {}
        self._hashing = 0
        self._buckets: dict[str, TokenBucket] = {}
        self._used: Counter[str] = Counter()  # by id, not yet written down
        self._written_at = time.monotonic()
        self._writing: asyncio.Task[None] | None = None
        # One each: a registry that is slow to take writes must hold up neither the reading nor the hashing.
        self._reader, self._hasher, self._writer = (
            ThreadPoolExecutor(1, thread_name_prefix=f"keys-{work}") for work in ("read", "hash", "write")
        )
        self._take(*self._read())

    @property
    def locked(self) -> bool:
        """Whether a key is asked for."""
        return self._always_locked or bool(self._records)

    @property
    def needs_admin(self) -> bool:
        """Whether there is nothing but the registry's keys to make keys with."""
        return self._service_key is None

    def changed(self) -> None:
        """A key was made or revoked here: the next request looks before it is let in."""
        self._changes += 1
        self._looked_at = -math.inf

    async def fresh(self) -> None:
        """What is known is at most half a second old after this, unless the registry does not answer."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() - self._looked_at >= FRESH_S:
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._look())
                self._asked_at = time.monotonic()
            # For a look that hangs one second is waited once, not by each request.
            left_s = min(until, self._asked_at + PATIENCE_S) - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.wait({self._reading}, timeout=left_s)  # which cancels nothing: others wait for it too

    async def of_token(self, given: str) -> Holder | None:
        """Raises `Overloaded` where too many are being verified, `Unavailable` where keys cannot be looked up."""
        if self._service_key is not None and hmac.compare_digest(given.encode(), self._service_key.encode()):
            return SERVICE
        token = parse_token(given)
        if token is None or (record := self._valid(token.id)) is None:
            return None
        remembered = blake2b(given.encode(), key=self._memory_key, digest_size=32).digest()
        if remembered not in self._verified:
            if not await self._verify(token, record):
                return None
            self._verified[remembered] = token.id
        return self.of_id(token.id)  # it may have been revoked meanwhile

    def of_id(self, key_id: str) -> Holder | None:
        """For whoever has shown the token before; "" is the service's key."""
        if key_id == "":
            return SERVICE if self._service_key is not None else None
        record = self._valid(key_id)
        return None if record is None else Holder(name=record.name, scope=record.scope, id=record.id)

    def take(self, holder: Holder) -> None:
        """Count a request. Raises `RateLimited`, `QuotaExceeded`."""
        record = self._records.get(holder.id)
        if record is None:
            return
        now = time.time()
        if record.daily is not None and self.used_today(record, now) >= record.daily:
            raise QuotaExceeded(
                f"The {record.daily} requests that the key {record.name!r} has for a day (in UTC) are used up.",
                retry_after_s=math.ceil(DAY_S - now % DAY_S),
            )
        if record.rate_per_s is not None:
            self._take_one(record, record.rate_per_s)
        self._used[record.id] += 1
        if time.monotonic() - self._written_at >= WRITE_DOWN_S and self._writing is None:
            self._writing = asyncio.ensure_future(self._write_down())

    def used_today(self, record: KeyRecord, now: float) -> int:
        """What is written down, and what this process has not yet written."""
        return record.used_on_day_of(now) + self._used[record.id]

    def close(self) -> None:
        """Write down what is counted, once nothing is served any more."""
        for threads in (self._reader, self._hasher, self._writer):
            threads.shutdown()
        try:
            self._keys.spend(self._used, time.time())
        except AdiabatError as error:
            log.warning("the last requests of each key were not counted: %s", error.detail)

    def _valid(self, key_id: str) -> KeyRecord | None:
        if time.monotonic() - self._read_at >= WITHOUT_REGISTRY_S:
            raise Unavailable("Keys cannot be looked up: the registry database does not answer.")
        record = self._records.get(key_id)
        return None if record is None or record.expired(time.time()) else record

    async def _verify(self, token: Token, record: KeyRecord) -> bool:
        if self._hashing >= MAX_HASHING:
            raise Overloaded("Too many keys are being verified for the first time; try again in a moment.")
        self._hashing += 1
        try:
            return await self._in(self._hasher, lambda: verifies(token.secret, record.hash))
        finally:
            self._hashing -= 1

    def _take_one(self, record: KeyRecord, rate_per_s: float) -> None:
        bucket = self._buckets.get(record.id)
        if bucket is None:
            bucket = self._buckets[record.id] = TokenBucket(rate_per_s, record.burst or max(1, math.ceil(rate_per_s)))
        if wait_s := bucket.take():
            raise RateLimited(
                f"The key {record.name!r} may send {rate_per_s:g} requests a second to each process; they came faster.",
                retry_after_s=math.ceil(wait_s),
            )

    async def _look(self) -> None:
        """Never raises."""
        changes = self._changes
        try:
            self._take(*await self._in(self._reader, self._read))
        except Exception as error:  # whatever it is, who was known comes in for a while
            log.warning("keys are taken as they were known %.0f s ago: %s", time.monotonic() - self._read_at, error)
        finally:
            self._reading = None
            if changes == self._changes:
                self._looked_at = time.monotonic()

    def _read(self) -> tuple[KeysRevision, list[KeyRecord] | None]:
        """None where they are the same: other than by `spend`, which makes no difference to who may come in."""
        revision = self._keys.revision()
        return revision, None if revision == self._revision else self._keys.all()

    def _take(self, revision: KeysRevision, records: list[KeyRecord] | None) -> None:
        self._read_at = time.monotonic()
        if records is None:
            return
        self._revision = revision
        self._records = {record.id: record for record in records}
        self._verified = {seen: key_id for seen, key_id in self._verified.items() if key_id in self._records}
        self._buckets = {key_id: each for key_id, each in self._buckets.items() if key_id in self._records}

    async def _write_down(self) -> None:
        used = Counter(self._used)
        try:
            await self._in(self._writer, lambda: self._keys.spend(used, time.time()))
            self._revision = None  # what is written down is read at the next look, here and of other processes
            self._used.subtract(used)
            self._used = +self._used
            self.changed()
        except Exception as error:  # the registry is away or full
            log.warning("requests of each key are counted later: %s", error)
        finally:
            self._written_at = time.monotonic()
            self._writing = None

    @staticmethod
    async def _in(threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
