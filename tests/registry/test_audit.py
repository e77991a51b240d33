"""The audit log on a real SQLite file: with the change or not at all, and never changed."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from app.errors import KeyExists, LastAdminKey
from app.registry import Action, Actor, NewKey, Registry, Scope, acting, audit
from tests.registry.jobs import add, new_encoder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.db")


def new_key(name: str, scope: Scope = Scope.SEARCH) -> NewKey:
    return NewKey(name=name, id=f"id-{name}", hash="scrypt$", scope=scope)


def test_an_entry_names_who_acts_and_nobody_outside_the_block(registry: Registry) -> None:
    with acting(Actor(key="ops", peer="10.0.0.1", request_id="r1")):
        encoder = add(registry)
        registry.activations.append(encoder.id, reason="activate", forced=True)
    registry.activations.append(encoder.id, reason="rollback")
    third, second, first = registry.audit.page(10)
    assert (first.action, first.target, first.key, first.peer, first.request_id) == (
        "encoder-registered",
        "bees@1",
        "ops",
        "10.0.0.1",
        "r1",
    )
    assert (second.action, second.outcome, second.generation) == ("switched", "forced", 1)
    assert (third.action, third.outcome, third.generation, third.key) == ("rolled-back", "done", 2, None)


@pytest.mark.parametrize("change", ["UPDATE audit SET key = 'somebody else'", "DELETE FROM audit"])
def test_no_entry_is_ever_changed_or_removed(registry: Registry, change: str) -> None:
    registry.audit.write(Action.PASSAGES_DELETED, "p1")
    with pytest.raises(DatabaseError, match="append-only"), registry.database.write() as connection:
        connection.execute(text(change))
    assert [entry.target for entry in registry.audit.page(10)] == ["p1"]


def test_there_is_no_change_without_its_entry(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps the entry from being written undoes the change."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    encoder = add(registry)
    registry.datasets.put("d", "sha256:d", {})
    monkeypatch.setattr(audit, "insert", fail)
    for work in (
        lambda: registry.encoders.add(new_encoder(name="wasps"), lambda _: None),
        lambda: registry.activations.append(encoder.id, reason="activate"),
        lambda: registry.datasets.delete("d"),
        lambda: registry.keys.make(new_key("k"), needs_admin=False),
    ):
        with pytest.raises(OSError, match="disk full"):
            work()
    assert [each.key for each in registry.encoders.all()] == ["bees@1"]
    assert registry.activations.newest() == []
    assert [each.name for each in registry.datasets.all()] == ["d"]
    assert registry.keys.all() == []


def test_there_is_no_entry_without_its_change(registry: Registry) -> None:
    registry.keys.make(new_key("k"), needs_admin=False)
    with pytest.raises(KeyExists):
        registry.keys.make(new_key("k"), needs_admin=False)
    registry.keys.make(new_key("admin", Scope.ADMIN), needs_admin=True)
    with pytest.raises(LastAdminKey):
        registry.keys.revoke("admin", needs_admin=True)
    assert {key.name for key in registry.keys.all()} == {"k", "admin"}
    assert [entry.action for entry in registry.audit.page(10)] == ["key-made", "key-made"]


def test_pages_go_back_by_action_and_by_key(registry: Registry) -> None:
    for number in range(5):
        with acting(Actor(key=f"k{number % 2}")):
            registry.audit.write(Action.PASSAGES_DELETED, f"p{number}")
            registry.audit.write(Action.REFUSED, "POST /keys", outcome="missing-scope")
    newest = registry.audit.page(3, action=Action.PASSAGES_DELETED)
    assert [entry.target for entry in newest] == ["p4", "p3", "p2"]
    older = registry.audit.page(3, before=newest[-1].sequence, action=Action.PASSAGES_DELETED)
    assert [entry.target for entry in older] == ["p1", "p0"]
    assert {entry.key for entry in registry.audit.page(10, key="k1")} == {"k1"}
    assert len(registry.audit.page(10, key="k1")) == 4
