"""Who holds a key, asked of a real registry: hashed once, known without it for a while, bounded."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.errors import Overloaded, RateLimited, Unavailable
from app.keys import KeyRing, TokenBucket, ring, session_secret
from app.keys.making import make_key
from app.keys.tokens import hashed, make_token, parse_token, verifies
from app.registry import Registry, Scope
from app.settings import Settings
from app.wire.keys import KeyCreate

SERVICE_KEY = "correct horse battery"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(tmp_path / "registry.db")
    yield opened
    opened.close()


@contextmanager
def keyring(registry: Registry, service_key: str | None = SERVICE_KEY) -> Iterator[KeyRing]:
    made = KeyRing(registry.keys, service_key, beyond_loopback=False, secret=b"s")
    yield made
    made.close()


def made_in(registry: Registry, name: str = "k", **wanted: object) -> str:
    return make_key(registry.keys, KeyCreate.model_validate({"name": name, **wanted}), needs_admin=False).key


def test_a_secret_is_hashed_once_however_often_it_comes(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    hashings = []

    def counted(secret: str, kept: str) -> bool:
        hashings.append(secret)
        return verifies(secret, kept)

    monkeypatch.setattr(ring, "verifies", counted)
    key = made_in(registry, scope="write")

    async def ask(keys: KeyRing) -> None:
        for given, name in [(key, "k")] * 5 + [(str(make_token()), None)] * 5 + [(SERVICE_KEY, "ADIABAT_API_KEY")]:
            await keys.fresh()
            holder = await keys.of_token(given)
            assert (holder and holder.name) == name
        found = await keys.of_token(key)
        assert found is not None
        assert found.scope is Scope.WRITE

    with keyring(registry) as keys:
        asyncio.run(ask(keys))
    assert len(hashings) == 1  # and none for an id that nobody has


def test_no_more_than_a_few_wait_for_a_hash(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "MAX_HASHING", 2)
    wrong = made_in(registry)[:-43] + make_token().secret

    async def ask(keys: KeyRing) -> list[object]:
        return list(await asyncio.gather(*(keys.of_token(wrong) for _ in range(5)), return_exceptions=True))

    with keyring(registry) as keys:
        found = asyncio.run(ask(keys))
    assert found.count(None) == 2
    assert sum(isinstance(each, Overloaded) for each in found) == 3


def test_without_the_registry_known_keys_open_for_a_while_and_the_services_own_for_ever(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = made_in(registry)

    def away() -> None:
        raise Unavailable("the registry is away")

    async def ask(keys: KeyRing) -> None:
        monkeypatch.setattr(ring, "FRESH_S", 0.0)
        monkeypatch.setattr(ring, "PATIENCE_S", 0.1)
        monkeypatch.setattr(registry.keys, "revision", away)
        await keys.fresh()
        assert await keys.of_token(key) is not None
        monkeypatch.setattr(ring, "WITHOUT_REGISTRY_S", 0.0)
        with pytest.raises(Unavailable):
            await keys.of_token(key)
        assert await keys.of_token(SERVICE_KEY) is not None

    with keyring(registry) as keys:
        asyncio.run(ask(keys))


def test_a_service_without_keys_asks_for_none_until_the_first(registry: Registry) -> None:
    async def ask(keys: KeyRing) -> None:
        assert not keys.locked
        made_in(registry, scope="admin")
        keys.changed()
        await keys.fresh()
        assert keys.locked

    with keyring(registry, None) as keys:
        asyncio.run(ask(keys))
    with keyring(registry) as keys:
        assert keys.locked


def test_a_rate_is_a_bucket_that_fills_again() -> None:
    bucket = TokenBucket(rate_per_s=50, burst=3)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    wait_s = bucket.take()
    assert 0 < wait_s <= 1 / 50
    time.sleep(2 * wait_s)  # its own clock is what is tested
    assert bucket.take() == 0


def test_a_holders_requests_are_counted_and_the_one_too_many_is_not(registry: Registry) -> None:
    key = made_in(registry, rate_per_s=0.001, burst=2)

    async def ask(keys: KeyRing) -> None:
        holder = await keys.of_token(key)
        assert holder is not None
        for _ in range(2):
            keys.take(holder)
        with pytest.raises(RateLimited) as refused:
            keys.take(holder)
        assert 0 < refused.value.data["retry_after_s"] <= 1_000

    with keyring(registry) as keys:
        asyncio.run(ask(keys))
    (found,) = registry.keys.all()
    assert (found.used, found.used_at is not None) == (2, True)


def test_a_token_is_read_back_and_nothing_like_it_is() -> None:
    token = make_token()
    assert parse_token(str(token)) == token
    for wrong in ("", "adiabat", f"{token}x", f" {token}", str(token)[:-1], str(token).upper(), f"{token}\n"):
        assert parse_token(wrong) is None


def test_a_hash_says_its_own_cost_and_no_two_are_alike() -> None:
    first, second = hashed("s"), hashed("s")
    assert first != second
    assert verifies("s", first)
    assert not verifies("t", first)
    dearer = "scrypt$8192$8$1$c2FsdHNhbHRzYWx0c2FsdA==$"
    assert not verifies("s", dearer + "eA==")  # read, and refused


def test_sessions_are_signed_with_what_all_replicas_have_or_with_a_file_of_the_owners(tmp_path: Path) -> None:
    plain = Settings(data_dir=tmp_path)
    assert session_secret(plain) == session_secret(plain)
    assert (tmp_path / "session.secret").stat().st_mode & 0o777 == 0o600
    keyed = plain.model_copy(update={"api_key": SERVICE_KEY})
    elsewhere = keyed.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    assert session_secret(keyed) == session_secret(elsewhere) != session_secret(plain)
    other = keyed.model_copy(update={"api_key": SERVICE_KEY + "x"})
    assert session_secret(other) != session_secret(keyed)


@pytest.mark.parametrize("left", ["", "00", "no hexadecimal"])
def test_a_secret_that_was_cut_short_is_made_anew(tmp_path: Path, left: str) -> None:
    """A power failure may leave an empty file: with what it holds anybody could sign a session."""
    (tmp_path / "session.secret").write_text(left)
    made = session_secret(Settings(data_dir=tmp_path))
    assert len(made) == 32
    assert made == session_secret(Settings(data_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["session.secret"]
    assert (tmp_path / "session.secret").stat().st_mode & 0o777 == 0o600
