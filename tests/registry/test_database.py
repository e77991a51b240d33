"""The database under the registry: migrations on both kinds, addresses, writers that wait, and what is away."""

import threading
import time
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from app.errors import BadInput, Conflict, Unavailable
from app.registry import Instance, JobStatus, NewJudgment, Registry
from app.registry.clock import now
from app.registry.database import Database, known_revisions, migration_config
from app.registry.engines import bare, read_url
from app.settings import Settings
from tests.postgres import Server
from tests.registry.conftest import registry_of
from tests.registry.jobs import add, prepared_job
from tests.registry.test_queries import searched

REVISIONS = [script.revision for script in ScriptDirectory.from_config(migration_config()).walk_revisions()][::-1]

ROWS = [
    "INSERT INTO encoders VALUES (1, 'base', 1, 'd', NULL, NULL, 'verified', 'ready', 1, '', '{}', '{}', '[]', 0)",
    "INSERT INTO tuning_jobs (id, name, parent_id, dataset, guards, dataset_digests, recipe, gate, activate, status,"
    " progress, created_at) VALUES ('a', 'bees', 1, 'd', '[]', '{}', '{}', '{}', 'never', 'succeeded', '{}', 0)",
    "INSERT INTO activations (generation, encoder_id, reason, forced, at) VALUES (1, 1, 'start', 0, 0)",
]
EVENT = "INSERT INTO job_events VALUES ('a', 1, 0, 'end', '{}')"


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_registry_of_any_earlier_release_is_taken_up_with_all_it_holds(
    empty_database: Path | str, revision: str
) -> None:
    registry_of(empty_database, revision, [*ROWS, *([EVENT] if revision >= "0002" else [])])
    registry = Registry(empty_database)
    assert (registry.jobs.get("a").name, registry.jobs.evaluations()) == ("bees", [])
    assert [each.encoder for each in registry.activations.newest(9)] == ["base@1"]
    assert len(registry.events.after("a", 0, 9)) == (revision >= "0002")
    registry.judgments.put(NewJudgment(query="q", passage_id="p", relevance=1, lang=None))
    registry.queries.add([(searched("a" * 32), 0.0)])
    assert registry.queries.click("a" * 32, [("p1", 1)]) == 1
    registry.workers.beat("w")
    registry.instances.beat(Instance(id="i", name="i", store="s", generation=1, failed_generation=None, reason=None))
    assert set(registry.clocks.ahead_s()) == {"trainer w", "service i"}
    registry.close()


def test_the_names_of_the_files_are_the_revisions_that_alembic_knows() -> None:
    assert known_revisions() == REVISIONS[::-1]


def test_two_that_open_an_empty_database_at_once_both_find_it_migrated(empty_database: Path | str) -> None:
    opened: list[Registry] = []
    threads = [threading.Thread(target=lambda: opened.append(Registry(empty_database))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.jobs.all() for each in opened] == [[], [], []]
    for each in opened:
        each.close()


@pytest.mark.parametrize("said", ["mysql://u:secret@h/d", "secret", "sqlite://"])
def test_an_address_that_is_none_is_refused_without_repeating_it(said: str) -> None:
    with pytest.raises(BadInput, match="postgresql://") as refused:
        Database(said)
    assert "secret" not in refused.value.detail


def test_where_a_registry_is_can_be_told_without_telling_who_may_enter() -> None:
    for said in ("me:hunter2@h:5/d", "h:5/d?user=me&password=hunter2&sslpassword=hunter2", "h:5/d?host=h&port=5"):
        told = bare(read_url(f"postgresql://{said}"))
        assert told.startswith("postgresql://h:5/d")
        assert "me:" not in told.partition("//")[2]
        assert "user=" not in told
        assert "hunter2" not in told


def test_the_registry_is_a_file_in_the_data_folder_unless_an_address_is_set(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).registry_at == tmp_path / "registry.db"
    assert Settings(registry_url="postgresql://h/d").registry_at == "postgresql://h/d"
    opened = Database(f"sqlite:///{tmp_path / 'folder' / 'other.db'}")
    assert (opened.name, opened.on_postgresql) == (str(tmp_path / "folder" / "other.db"), False)
    opened.close()


def test_a_server_that_is_not_there_is_told_without_the_password(postgres: Server) -> None:
    with pytest.raises(Unavailable, match="does not answer") as refused:
        Database("postgresql://u:secret@127.0.0.1:1/d")
    assert "secret" not in refused.value.detail
    url = postgres.fresh()
    opened = Database(url)
    assert opened.name.startswith("postgresql://")
    opened.close()
    postgres.drop(url)
    with pytest.raises(Unavailable, match="does not exist"):
        Database(url)


def test_a_transaction_whose_connection_breaks_is_undone_and_the_next_one_has_another(postgres: Server) -> None:
    url = postgres.migrated()
    registry, administrator = Registry(url), Database(url)
    add(registry)
    with pytest.raises(Unavailable, match=r"terminating|closed"):
        change_and_break(registry, administrator)
    assert registry.encoders.find("bees@1").description == ""
    registry.close()
    administrator.close()
    postgres.drop(url)


def change_and_break(registry: Registry, administrator: Database) -> None:
    with registry.database.write() as connection:
        connection.execute(text("UPDATE encoders SET description = 'changed'"))
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with administrator.read() as other:
            other.execute(text(f"SELECT pg_terminate_backend({backend}, 5000)"))
        connection.execute(text("SELECT 1"))


def test_what_locks_its_own_row_does_not_wait_for_another_writer(postgres: Server) -> None:
    """A worker's sign of life must not stop because an encoder is just being put on a slow disk."""
    url = postgres.migrated()
    registry = Registry(url)
    job_id = prepared_job(registry)
    with registry.database.write():
        job = registry.jobs.claim("w/1")
        assert job is not None
        registry.workers.beat("w")
        assert registry.jobs.report(job_id, {"step": 1}, held_by="w/1") is JobStatus.RUNNING
    registry.close()
    postgres.drop(url)


def test_the_clock_is_the_databases_and_goes_on_within_a_transaction(registry: Registry) -> None:
    assert abs(registry.database.now() - time.time()) < 60
    with registry.database.write() as connection:
        first, second = (connection.execute(select(now())).scalar_one() for _ in range(2))
    assert first < second


def test_a_text_that_the_database_cannot_keep_is_refused_in_words(postgres: Server) -> None:
    url = postgres.migrated()
    registry = Registry(url)
    with pytest.raises(BadInput, match="NUL"):
        registry.judgments.put(NewJudgment(query="a\0b", passage_id="p", relevance=1, lang=None))
    registry.close()
    postgres.drop(url)


def test_a_registry_of_a_newer_release_says_where_without_the_password(postgres: Server) -> None:
    url = postgres.migrated()
    registry = Registry(url)
    with registry.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    registry.close()
    with pytest.raises(Conflict, match=r"postgresql:///adiabat_test_.*9999"):
        Registry(url)
    postgres.drop(url)
