"""Jobs that go from a trainer which is silent to another one; and the word of the silent one, should it come back."""

import time

import pytest

from app.registry import EventKind, JobStatus, Registry
from app.registry.job_records import MAX_ATTEMPTS
from app.registry.silence import Silence
from tests.conftest import wait_until
from tests.registry.jobs import add, new_encoder, prepared_job

LEASE_S = 0.3


def test_a_job_is_silent_when_nothing_was_heard_of_it_for_a_lease_whatever_the_clocks_say(registry: Registry) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("w/1")
    silence = Silence(registry.jobs, LEASE_S)
    with registry.database.write() as connection:
        connection.exec_driver_sql("UPDATE tuning_jobs SET heartbeat_at = heartbeat_at - 600")
    assert silence.look() == []
    heard_until = time.monotonic() + 2 * LEASE_S
    while time.monotonic() < heard_until:
        registry.jobs.report(job_id, {}, held_by="w/1")
        assert silence.look() == []
    wait_until(lambda: [job.id for job in silence.look()] == [job_id])


def test_only_a_job_that_is_still_as_it_was_seen_is_taken_away(registry: Registry) -> None:
    job_id = prepared_job(registry)
    seen = registry.jobs.claim("w/1")
    registry.jobs.report(job_id, {}, held_by="w/1")
    assert registry.jobs.interrupt(silent=seen, hand_on=True) == []
    assert registry.jobs.get(job_id).worker == "w/1"


def test_a_job_that_is_handed_on_is_told_of_and_goes_to_the_next_trainer(registry: Registry) -> None:
    job_id = prepared_job(registry)
    seen = registry.jobs.claim("w/1")
    assert registry.jobs.interrupt(silent=registry.jobs.get(job_id), hand_on=True) == [job_id]
    again = registry.jobs.claim("w/2")
    assert seen is not None
    assert again is not None
    assert (seen.attempts, again.attempts, again.worker) == (1, 2, "w/2")
    told = [event.data["status"] for event in registry.events.after(job_id, 0, 99)]
    assert told == ["queued", "queued", "running", "queued", "running"]


def test_the_word_of_the_one_before_does_not_count(registry: Registry) -> None:
    job_id = prepared_job(registry)
    mine = registry.jobs.claim("w/1")
    assert mine is not None
    with registry.database.write() as connection:
        assert registry.jobs.is_held(connection, mine)
    registry.jobs.interrupt(worker="w", hand_on=True)
    with registry.database.write() as connection:
        assert not registry.jobs.is_held(connection, mine)
    registry.jobs.claim("w/2")
    with registry.database.write() as connection:
        assert not registry.jobs.is_held(connection, mine)
    before = registry.events.after(job_id, 0, 99)
    registry.events.tell(job_id, EventKind.LOG, held_by="w/1", message="late")
    assert registry.jobs.report(job_id, {"step": 9}, held_by="w/1") is None
    assert not registry.jobs.move(job_id, JobStatus.FAILED, only_from=(JobStatus.RUNNING,), held_by="w/1")
    assert registry.events.after(job_id, 0, 99) == before


def test_what_refuses_first_leaves_nothing_placed(registry: Registry) -> None:
    class LostError(Exception):
        pass

    placed: list[str] = []

    def refuse(_connection: object) -> None:
        raise LostError

    try:
        registry.encoders.add(new_encoder(), placed.append, first=refuse)
    except LostError:
        placed.append("refused")
    assert placed == ["refused"]
    assert registry.encoders.all() == []


@pytest.mark.parametrize("hand_on", [False, True])
def test_a_cancelled_job_of_a_dead_trainer_is_cancelled(registry: Registry, hand_on: bool) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("w/1")
    registry.jobs.cancel(job_id)
    registry.jobs.interrupt(worker="w", hand_on=hand_on)
    assert registry.jobs.get(job_id).status is JobStatus.CANCELLED


def test_a_job_that_silences_one_trainer_after_the_other_waits_for_somebody(registry: Registry) -> None:
    job_id = prepared_job(registry)
    for number in range(MAX_ATTEMPTS):
        assert registry.jobs.claim(f"w/{number}") is not None
        registry.jobs.interrupt(worker="w", hand_on=True)
    ended = registry.jobs.get(job_id)
    assert (ended.status, f"{MAX_ATTEMPTS} trainers in a row" in str(ended.reason)) == (JobStatus.INTERRUPTED, True)
    assert registry.jobs.resume(job_id).attempts == 0


def test_a_job_that_another_trainer_is_just_taking_is_passed_over(registry: Registry) -> None:
    """Two that claim at once on PostgreSQL do not wait for one another: the second takes the next job."""
    first, second = prepared_job(registry), prepared_job(registry)
    add(registry)
    if not registry.database.on_postgresql:
        return
    from sqlalchemy import select

    from app.registry.tables import tuning_jobs

    with registry.database.write(shared=True) as connection:
        connection.execute(select(tuning_jobs).where(tuning_jobs.c.id == first).with_for_update())
        taken = registry.jobs.claim("w/2")
        assert taken is not None
        assert taken.id == second
