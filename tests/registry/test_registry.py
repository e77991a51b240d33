"""The registry on both databases, from several threads where it matters."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.errors import Conflict, EncoderNotFound, JobFinished, StaleGeneration
from app.registry import EncoderState, JobStatus, Registry
from app.registry.tables import metadata
from tests.registry.jobs import add, new_encoder, prepared_job


def test_migrations_lead_to_exactly_the_tables_in_code(registry: Registry) -> None:
    with registry.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_registry_of_a_newer_release_is_refused_naming_both_revisions(database: Path | str) -> None:
    opened = Registry(database)
    with opened.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    opened.close()
    with pytest.raises(Conflict, match=r"9999.*up to 0"):
        Registry(database)


def test_versions_count_up_and_the_same_digest_is_the_same_encoder(registry: Registry) -> None:
    first, new = registry.encoders.add(new_encoder(digest="sha256:a"), lambda _: None)
    again, new_again = registry.encoders.add(new_encoder(digest="sha256:a"), lambda _: None)
    second, _ = registry.encoders.add(new_encoder(digest="sha256:b"), lambda _: None)
    assert (first.version, new, again.id, new_again, second.version) == (1, True, first.id, False, 2)


def test_a_failed_placement_leaves_no_row(registry: Registry) -> None:
    def fail(_key: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.encoders.add(new_encoder(), fail)
    with pytest.raises(EncoderNotFound):
        registry.encoders.find("bees")


def test_by_name_alone_the_newest_ready_version_is_meant(registry: Registry) -> None:
    add(registry, digest="sha256:a")
    rejected = add(registry, digest="sha256:b")
    registry.encoders.set_state(rejected.id, EncoderState.REJECTED)
    assert registry.encoders.find("bees").version == 1
    assert registry.encoders.find("bees@2").version == 2


def test_generations_grow_by_one_and_a_stale_expectation_is_refused(registry: Registry) -> None:
    encoder = add(registry)
    assert registry.activations.append(encoder.id, reason="start").generation == 1
    assert registry.activations.append(encoder.id, reason="activate", expected=1).generation == 2
    with pytest.raises(StaleGeneration, match="Generation 1 was expected, but 2"):
        registry.activations.append(encoder.id, reason="activate", expected=1)
    assert [item.generation for item in registry.activations.newest(10)] == [2, 1]


def test_many_threads_appending_give_one_history_without_gaps(registry: Registry) -> None:
    encoder = add(registry)

    def append() -> None:
        for _ in range(10):
            registry.activations.append(encoder.id, reason="activate")

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [item.generation for item in registry.activations.newest(100)] == list(range(40, 0, -1))


def test_a_deleted_encoder_cannot_become_active(registry: Registry) -> None:
    encoder = add(registry)
    registry.encoders.set_state(encoder.id, EncoderState.DELETED)
    with pytest.raises(Conflict, match="deleted"):
        registry.activations.append(encoder.id, reason="activate")


def test_two_workers_never_claim_the_same_job(registry: Registry) -> None:
    ids = {prepared_job(registry) for _ in range(8)}
    claimed: list[str] = []

    def work(name: str) -> None:
        while (job := registry.jobs.claim(name)) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(ids)


def test_cancel_ends_a_waiting_job_at_once_and_asks_a_running_one(registry: Registry) -> None:
    waiting, running = prepared_job(registry), prepared_job(registry)
    assert registry.jobs.cancel(waiting).status is JobStatus.CANCELLED
    assert registry.jobs.claim("w") is not None
    assert registry.jobs.cancel(running).status is JobStatus.CANCELLING
    assert registry.jobs.report(running, {"step": 1}, held_by="w") is JobStatus.CANCELLING
    with pytest.raises(JobFinished):
        registry.jobs.cancel(waiting)


def test_a_dead_workers_job_is_interrupted_and_its_late_word_does_not_count(registry: Registry) -> None:
    job_id = prepared_job(registry)
    registry.jobs.claim("w")
    assert registry.jobs.interrupt(worker="other") == []
    assert registry.jobs.interrupt(worker="w") == [job_id]
    assert not registry.jobs.move(job_id, JobStatus.SUCCEEDED, only_from=(JobStatus.RUNNING,))
    assert registry.jobs.get(job_id).status is JobStatus.INTERRUPTED


def test_a_worker_is_buried_whatever_its_token(registry: Registry) -> None:
    mine, other = prepared_job(registry), prepared_job(registry)
    registry.jobs.claim("w_1/a")
    registry.jobs.claim("wx1/a")
    assert registry.jobs.interrupt(worker="w_1") == [mine]
    assert registry.jobs.get(other).status is JobStatus.RUNNING


def test_a_worker_that_was_silent_for_a_day_is_forgotten(registry: Registry) -> None:
    for name in ("gone", "late"):
        registry.workers.beat(name)
    with registry.database.write() as connection:
        connection.exec_driver_sql("UPDATE workers SET seen_at = seen_at - 86500 WHERE name = 'gone'")
        connection.exec_driver_sql("UPDATE workers SET seen_at = seen_at - 86000 WHERE name = 'late'")
    registry.workers.beat("w")
    assert set(registry.workers.ages_s()) == {"late", "w"}


def test_sweep_removes_what_no_living_row_names(registry: Registry) -> None:
    add(registry)
    removed: list[str] = []
    assert registry.encoders.sweep(["bees@1", "bees@2", "wasps@1"], removed.append) == ["bees@2", "wasps@1"]
    assert removed == ["bees@2", "wasps@1"]
