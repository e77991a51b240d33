"""The history of continuous tuning: what the newest steps say, and that a step is taken once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from app.errors import StaleGeneration
from app.registry import Actor, JobRecord, NewStep, Registry, StepKind, acting
from tests.registry.jobs import new_job

TERMS = {"name": "learned", "min_new_judgments": 5}


def take(registry: Registry, kind: StepKind, **fields: Any) -> None:
    after = registry.continuous.standing().sequence
    registry.continuous.take(after, NewStep(kind=kind, at=float(after), said=f"it is {kind}", **fields))


def test_the_newest_steps_say_how_it_stands(registry: Registry) -> None:
    continuous = registry.continuous
    assert continuous.standing().order is None
    continuous.set(TERMS, "at 5")
    order = continuous.standing().order
    assert order is not None
    assert (order.sequence, order.terms, order.said) == (1, TERMS, "at 5")
    assert continuous.standing().round is None

    job_id = registry.jobs.add(new_job(registry)).id
    take(registry, StepKind.STARTED, job_id=job_id, generation=1, judged_until=7.5)
    for _ in range(2):
        take(registry, StepKind.RESUMED, job_id=job_id, generation=1)
    continuous.set({**TERMS, "dry_run": True}, "another")  # in the midst of a round
    standing = continuous.standing()
    assert (standing.sequence, standing.resumed) == (5, 2)
    assert standing.round is not None
    assert (standing.round.sequence, standing.round.kind) == (4, StepKind.RESUMED)
    assert standing.began is not None
    assert (standing.began.sequence, standing.began.judged_until) == (2, 7.5)

    take(registry, StepKind.DISCARDED, job_id=job_id)
    continuous.remove("no more")
    standing = continuous.standing()
    assert (standing.round, standing.order, standing.resumed) == (None, None, 0)
    assert standing.setting is not None
    assert standing.setting.kind is StepKind.REMOVED
    assert standing.began is not None
    assert standing.began.sequence == 2  # what was judged till then stays used
    kinds = [step.kind for step in continuous.page(9)]
    assert kinds == ["removed", "discarded", "set", "resumed", "resumed", "started", "set"]
    assert [step.sequence for step in continuous.page(2, before=4)] == [3, 2]


def test_the_same_again_changes_nothing_and_each_change_says_whose_it_is(registry: Registry) -> None:
    continuous = registry.continuous
    continuous.remove("there is none")
    with acting(Actor(key="ops")):
        continuous.set(TERMS, "at 5")
    with acting(Actor(key="another")):
        continuous.set(dict(TERMS), "at 5")
    standing = continuous.standing()
    assert standing.sequence == 1
    assert standing.order is not None
    assert standing.order.set_by == "ops"
    continuous.remove("no more")
    continuous.remove("no more")
    assert continuous.standing().sequence == 2
    entries = [(entry.action, entry.key, entry.target, entry.detail) for entry in registry.audit.page(9)]
    assert entries == [
        ("continuous-tuning-removed", None, "continuous-tuning", {}),
        ("continuous-tuning-set", "ops", "continuous-tuning", {"terms": TERMS}),
    ]


def test_of_all_that_would_take_a_step_one_does(registry: Registry, database: Path | str) -> None:
    registry.continuous.set(TERMS, "at 5")
    others = [Registry(database) for _ in range(6)]

    def tried(number: int) -> bool:
        step = NewStep(kind=StepKind.DRY_RUN, at=0.0, said=str(number), judged_until=1.0)
        with suppress(StaleGeneration):
            others[number % 6].continuous.take(number // 6 + 1, step)
            return True
        return False

    with ThreadPoolExecutor(6) as threads:
        for start in range(0, 30, 6):
            assert list(threads.map(tried, range(start, start + 6))).count(True) == 1
    assert [step.sequence for step in registry.continuous.page(99)] == [6, 5, 4, 3, 2, 1]
    for other in others:
        other.close()


def test_a_step_that_came_too_late_takes_back_what_it_was_to_tell(registry: Registry) -> None:
    registry.continuous.set(TERMS, "at 5")

    def also(connection: Connection, job: JobRecord) -> None:
        step = NewStep(kind=StepKind.STARTED, at=0.0, said="it begins", job_id=job.id)
        registry.continuous.append(connection, 0, step)

    new = new_job(registry)
    with pytest.raises(StaleGeneration, match="Step 0 of continuous tuning was the newest, and 1 is by now"):
        registry.jobs.add(new, also)
    assert registry.jobs.all() == []


def test_who_acts_by_itself_says_for_whom(registry: Registry) -> None:
    with acting(Actor(detail={"by": "continuous-tuning", "set_by": "ops"})):
        registry.jobs.add(new_job(registry))
    entry = registry.audit.page(1)[0]
    assert (entry.action, entry.key) == ("tuning-started", None)
    assert entry.detail == {"name": "bees", "activate": "never", "by": "continuous-tuning", "set_by": "ops"}
