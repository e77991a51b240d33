"""Events of tuning jobs: every change is told, in order, in the transaction that makes it."""

import threading

import pytest
from sqlalchemy import update

from app.errors import Conflict, DatasetInUse, JobFinished, JobNotResumable
from app.registry import EncoderState, EventKind, JobEvent, JobStatus, Registry
from app.registry.job_records import KEEP_INTERRUPTED_S
from app.registry.tables import tuning_jobs
from tests.registry.jobs import new_job, prepared_job


def told(registry: Registry, job_id: str) -> list[tuple[str, str]]:
    """Kind and status of the events that have a status."""
    return [(e.kind, e.data["status"]) for e in events(registry, job_id) if "status" in e.data]


def events(registry: Registry, job_id: str, after: int = 0) -> list[JobEvent]:
    return registry.events.after(job_id, after, 1_000)


def test_every_change_of_status_is_told_as_clients_see_it(registry: Registry) -> None:
    job_id = registry.jobs.add(new_job(registry)).id
    registry.jobs.move(job_id, JobStatus.PREPARING, only_from=(JobStatus.QUEUED,))
    registry.jobs.move(job_id, JobStatus.PREPARED, only_from=(JobStatus.PREPARING,))
    registry.jobs.claim("w")
    registry.jobs.move(job_id, JobStatus.REJECTED, only_from=(JobStatus.RUNNING,), reason="no", told={"encoder": "b@1"})
    assert told(registry, job_id) == [
        ("status", "queued"),
        ("status", "preparing"),
        ("status", "queued"),
        ("status", "running"),
        ("end", "rejected"),
    ]
    assert events(registry, job_id)[-1].data == {"status": "rejected", "reason": "no", "encoder": "b@1"}


def test_a_change_that_was_not_made_is_not_told(registry: Registry) -> None:
    job_id = prepared_job(registry)
    before = events(registry, job_id)
    assert not registry.jobs.move(job_id, JobStatus.SUCCEEDED, only_from=(JobStatus.RUNNING,))
    assert events(registry, job_id) == before


def test_numbers_count_within_the_job_without_gaps_from_many_threads(registry: Registry) -> None:
    first, second = prepared_job(registry), prepared_job(registry)

    def tell(job_id: str) -> None:
        for number in range(20):
            registry.events.tell(job_id, EventKind.LOG, message=str(number))

    threads = [threading.Thread(target=tell, args=(job_id,)) for job_id in (first, second, first)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.sequence for event in events(registry, first)] == list(range(1, 43))
    assert [event.sequence for event in events(registry, second)] == list(range(1, 23))
    assert [event.sequence for event in registry.events.after(first, 3, 2)] == [4, 5]


def test_progress_is_told_when_it_changed(registry: Registry) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("w")
    for step in (1, 1, 2):
        assert registry.jobs.report(job_id, {"step": step}, held_by="w") is JobStatus.RUNNING
    assert [e.data for e in events(registry, job_id) if e.kind is EventKind.PROGRESS] == [{"step": 1}, {"step": 2}]


def test_a_worker_that_was_taken_for_dead_tells_nothing_after_the_end(registry: Registry) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("slow")
    registry.jobs.interrupt(worker="slow")
    assert registry.jobs.report(job_id, {"step": 9}, held_by="slow") is JobStatus.INTERRUPTED
    registry.events.tell(job_id, EventKind.LOG, message="still here")
    assert events(registry, job_id)[-1].kind is EventKind.END
    assert registry.jobs.get(job_id).progress == {}


def test_an_interrupted_job_is_resumed_and_told_after_its_end(registry: Registry) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("w")
    registry.jobs.interrupt(worker="w")
    assert "resume" in (registry.jobs.get(job_id).reason or "")
    resumed = registry.jobs.resume(job_id)
    assert (resumed.status, resumed.worker, resumed.reason, resumed.finished_at) == (JobStatus.QUEUED, None, None, None)
    assert told(registry, job_id)[-2:] == [("end", "interrupted"), ("status", "queued")]
    with pytest.raises(JobNotResumable, match="it needs no resume"):
        registry.jobs.resume(job_id)


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.SUCCEEDED, JobStatus.REJECTED, JobStatus.CANCELLED])
def test_only_an_interrupted_job_can_be_resumed(registry: Registry, status: JobStatus) -> None:
    job_id = prepared_job(registry)
    registry.jobs.move(job_id, status, only_from=(JobStatus.PREPARED,))
    with pytest.raises(JobNotResumable, match="start another with the same body"):
        registry.jobs.resume(job_id)


def test_an_interrupted_job_can_be_given_up_but_once(registry: Registry) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("w")
    registry.jobs.interrupt(worker="w")
    assert registry.jobs.cancel(job_id).status is JobStatus.CANCELLED
    with pytest.raises(JobFinished):
        registry.jobs.cancel(job_id)


def test_a_worker_that_was_taken_for_dead_has_no_word_in_the_resumed_job(registry: Registry) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("slow")
    registry.jobs.interrupt(worker="slow")
    registry.jobs.resume(job_id)
    registry.jobs.move(job_id, JobStatus.PREPARED, only_from=(JobStatus.QUEUED,))
    registry.jobs.claim("other")
    assert registry.jobs.report(job_id, {"step": 9}, held_by="slow") is None
    assert not registry.jobs.move(job_id, JobStatus.SUCCEEDED, only_from=(JobStatus.RUNNING,), held_by="slow")
    assert registry.jobs.get(job_id).progress == {}
    assert registry.jobs.move(job_id, JobStatus.SUCCEEDED, only_from=(JobStatus.RUNNING,), held_by="other")


def test_a_dataset_is_kept_while_an_unfinished_job_was_started_with_it(registry: Registry) -> None:
    registry.datasets.put("d", "sha256:1", {})
    job = registry.jobs.add(new_job(registry, {"d": "sha256:1"}))
    with pytest.raises(DatasetInUse, match=job.id):
        registry.datasets.delete("d")
    registry.jobs.cancel(job.id)
    assert registry.datasets.delete("d") == "sha256:1"


@pytest.mark.parametrize("state", [EncoderState.DELETED, EncoderState.BROKEN])
def test_a_job_is_not_made_from_a_parent_that_went_meanwhile(registry: Registry, state: EncoderState) -> None:
    new = new_job(registry)
    registry.encoders.set_state(new.parent_id, state)
    with pytest.raises(Conflict, match=f"base@1 became {state}"):
        registry.jobs.add(new)
    assert registry.jobs.all() == []


def test_a_job_is_not_made_with_content_that_has_no_record_any_more(registry: Registry) -> None:
    registry.datasets.put("d", "sha256:2", {})
    with pytest.raises(Conflict, match="'d' was replaced or deleted"):
        registry.jobs.add(new_job(registry, {"d": "sha256:1"}))
    assert registry.jobs.all() == []


def test_content_is_needed_by_records_by_unfinished_jobs_and_for_a_week_by_interrupted_ones(registry: Registry) -> None:
    registry.datasets.put("d", "sha256:1", {})
    job = registry.jobs.add(new_job(registry, {"d": "sha256:1"}))
    registry.datasets.put("d", "sha256:2", {})
    assert registry.datasets.digests_needed() == {"sha256:1", "sha256:2"}
    interrupted_at = registry.jobs.get(job.id).created_at - KEEP_INTERRUPTED_S + 60
    registry.jobs.move(job.id, JobStatus.INTERRUPTED, only_from=(JobStatus.QUEUED,))
    age(registry, job.id, interrupted_at)
    assert "sha256:1" in registry.datasets.digests_needed()
    age(registry, job.id, interrupted_at - 120)
    assert registry.datasets.digests_needed() == {"sha256:2"}


def age(registry: Registry, job_id: str, finished_at: float) -> None:
    with registry.database.write() as connection:
        connection.execute(update(tuning_jobs).where(tuning_jobs.c.id == job_id).values(finished_at=finished_at))
