"""Experiments in the registry: what counts as a request of one, and what is kept of it."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from app.errors import ExperimentNotFound
from app.registry import Decided, NewCanary, Registry, Rules, Tally
from app.registry.experiments import Arm
from app.registry.signals import Signal
from tests.registry import jobs as encoders
from tests.registry.test_queries import add

numbers = itertools.count(1)


def searched(registry: Registry, rule: str, unit: str | None, clicked: int = 0, **fields: Any) -> None:
    kept = add(registry, next(numbers), rule=rule, unit=unit, **{"generation": 2} | fields)
    places = [(passage_id, place) for place, passage_id in enumerate(kept.shown, kept.offset + 1)]
    if clicked:
        registry.queries.click(kept.search_id, places[:clicked])


@pytest.fixture
def split(registry: Registry) -> Registry:
    """Generation 2 has a canary, 3 a greater one, 4 none."""
    ids = [encoders.add(registry, name, digest=name).id for name in ("base", "bees")]
    activations = registry.activations
    activations.append(ids[0], reason="start")
    for percent in (10, 50):
        activations.advance(
            ids[0], reason="canary", canary=NewCanary(encoder_id=ids[1], percent=percent, sticky_by="key")
        )
    activations.advance(ids[0], reason="rollback")
    return registry


def test_requests_count_by_user_and_arm_where_they_were_told_apart(split: Registry) -> None:
    searched(split, "active", "ann", clicked=2)
    searched(split, "active", "ann", clicked=1)
    searched(split, "active", "ann")
    searched(split, "active", "bob")
    searched(split, "canary", "eve", clicked=1)
    searched(split, "active", None, clicked=1)  # says nothing of itself
    searched(split, "named", "ann", clicked=1)
    searched(split, "canary", "eve", clicked=1, offset=10)  # a further page
    searched(split, "canary", "eve", clicked=1, generation=3)
    assert split.experiments.count(2, interleaved=False) == Tally(
        active=Arm(requests=4, users=2, clicked=2, clicks=3, squares=10, products=6, clicked_squares=4),
        canary=Arm(requests=1, users=1, clicked=1, clicks=1, squares=1, products=1, clicked_squares=1),
    )
    assert split.experiments.count(4, interleaved=False) == Tally()


def test_every_generation_with_a_canary_is_one_and_the_next_ends_it(split: Registry) -> None:
    newest, older = split.experiments.page(9)
    assert (newest.began.generation, older.began.generation) == (3, 2)
    assert newest.began.canary is not None
    assert (newest.began.canary.encoder, newest.began.canary.percent) == ("bees@1", 50)
    assert newest.ended is not None
    assert older.ended is not None
    assert (newest.ended.reason, older.ended.reason) == ("rollback", "canary")
    assert split.experiments.page(1, before=3) == [older]
    assert split.experiments.find(2) == older
    for none in (1, 4, 99):
        with pytest.raises(ExperimentNotFound, match=f"Generation {none} is no experiment"):
            split.experiments.find(none)


def test_what_is_kept_stays(split: Registry, database: Path | str) -> None:
    assert [each.began.generation for each in split.experiments.unsettled()] == [3, 2]
    tally = Tally(active=Arm(requests=3, users=1), canary=Arm(requests=2, clicks=7))
    split.experiments.keep(2, tally, None, settled=False)
    decided = Decided(verdict="worse", requests=5, at=1.5, alpha=0.05)
    split.experiments.keep(2, tally, decided, settled=True)
    split.close()
    again = Registry(database)
    found = again.experiments.find(2)
    assert (found.tally, found.decided, found.settled) == (tally, decided, True)
    assert [each.began.generation for each in again.experiments.unsettled()] == [3]
    again.close()


def test_a_click_on_an_interleaved_search_counts_for_whose_pick_it_was(split: Registry) -> None:
    together = {"rule": "interleaved", "teams": "=ac", "generation": 2}

    def ask(unit: str | None, *places: int, **fields: Any) -> None:
        kept = add(split, next(numbers), unit=unit, **together | fields)
        split.queries.click(kept.search_id, [(kept.shown[place - kept.offset - 1], place) for place in places])

    ask("ann", 3)
    ask("ann", 1, 3)
    ask("ann", 2, 3)  # one each
    ask("bob", 2)
    ask("bob", 1)  # of both alike
    ask("bob")
    ask(None, 3)
    ask(None, 13, offset=10)
    ask("ann", 3, generation=3)
    clicked = split.queries.page(1)[0].clicks
    assert [click.team for click in clicked] == ["c"]
    assert split.experiments.count(2, interleaved=True) == Tally(
        active=Arm(requests=7, users=3, clicked=2, clicks=2, wins=1),
        canary=Arm(requests=7, users=3, clicked=4, clicks=4, wins=3),
        interleaved=True,
        squares=2**2 + 1 + 1,
    )
    assert split.experiments.count(4, interleaved=True) == Tally(interleaved=True)


def test_signals_of_all_services_are_summed(split: Registry) -> None:
    signals = split.signals
    signals.add({(2, "canary"): Signal(requests=2, errors=1, empty=1, timed=1, seconds=0.5, seconds_squared=0.25)})
    signals.add(
        {
            (2, "canary"): Signal(requests=1, scored=2, score=1.5, score_squared=1.25),
            (2, "active"): Signal(requests=9),
            (3, "active"): Signal(requests=5),
        }
    )
    assert signals.of(2, 120) == {
        "active": Signal(requests=9),
        "canary": Signal(
            requests=3,
            errors=1,
            empty=1,
            timed=1,
            seconds=0.5,
            seconds_squared=0.25,
            scored=2,
            score=1.5,
            score_squared=1.25,
        ),
    }
    assert signals.of(4, 120) == {"active": Signal(), "canary": Signal()}
    assert signals.of(2, -120) == {"active": Signal(), "canary": Signal()}  # what is older is left out
    signals.forget(2)
    assert signals.of(2, 120)["active"] == Signal()
    assert signals.of(3, 120)["active"] == Signal(requests=5)


def test_signals_that_no_rule_looks_back_on_go_whosever_they_were(
    split: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    split.signals.add({(2, "active"): Signal(requests=9)})
    monkeypatch.setattr("app.registry.signals.KEPT_S", -120)  # as two minutes after the longest window
    split.signals.add({(3, "active"): Signal(requests=5)})
    assert split.signals.of(2, 120)["active"] == Signal()
    assert split.signals.of(3, 120)["active"] == Signal(requests=5)


def test_rules_and_why_a_generation_was_made_are_kept(split: Registry) -> None:
    rules = Rules(alpha=0.01, min_requests=50, window_s=60, clicks=False, zero_hits=None, errors=0.1, latency=2)
    newest = split.activations.newest(1)[0]
    canary = split.activations.newest(3)[1].canary
    assert canary is not None
    wanted = NewCanary(encoder_id=canary.encoder_id, percent=100, sticky_by="key", interleave=True, rules=rules)
    split.activations.advance(newest.encoder_id, reason="canary", canary=wanted)
    again = split.activations.advance(newest.encoder_id, reason="canary", canary=wanted)
    assert not again.changed
    kept = again.serving.active.canary
    assert kept is not None
    assert (kept.rules, kept.interleave) == (rules, True)
    split.activations.advance(newest.encoder_id, reason="rule", note="Rule errors: many")
    ended = split.activations.newest(1)[0]
    assert (ended.reason, ended.note, ended.canary) == ("rule", "Rule errors: many", None)
    entry = split.audit.page(1)[0]
    assert (entry.action, entry.key, entry.detail) == (
        "rolled-back",
        None,
        {"reason": "rule", "note": "Rule errors: many"},
    )
