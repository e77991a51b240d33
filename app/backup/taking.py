"""What goes into a backup, of one moment: the store's writers wait while it is copied, the registry's for less.

Encoders and datasets never change, so they are linked, not copied: what is deleted meanwhile is still there.
"""

import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.backup.archive import ARTIFACTS, PASSAGES, REGISTRY, About
from app.encoders.artifacts import ArtifactStore
from app.errors import Conflict, NotFound
from app.lock import data_dir_lock
from app.passages import PassageStore
from app.passages.edge_folder import recorded_index_space
from app.registry.engines import POSTGRESQL, read_url
from app.registry.job_records import JobStatus, keeps_files
from app.registry.snapshot import snapshot
from app.settings import Settings

NAMED_ENCODERS = "SELECT name || '@' || version FROM encoders WHERE state != 'deleted' ORDER BY id"
NAMED_DATASETS = "SELECT digest FROM datasets"
READ_BY_JOBS = "SELECT status, finished_at, dataset_digests FROM tuning_jobs"
ACTIVE = (
    "SELECT name || '@' || version, generation FROM activations JOIN encoders ON encoders.id = encoder_id "
    "ORDER BY generation DESC LIMIT 1"
)


@contextmanager
def taken(settings: Settings, artifacts: ArtifactStore, store: PassageStore) -> Iterator[Path]:
    """A folder that holds what a backup holds, until the block ends.

    Raises `Conflict` where registry or passages are on a server, `NotFound` before the first start, `Unavailable`.
    """
    registry = _registry_file(settings)
    with artifacts.staging() as folder:

        def at_this_point() -> None:
            with snapshot(registry, folder / REGISTRY) as copy:
                missing = _link_named(copy, artifacts, folder / ARTIFACTS)
                _forget_prepared(copy)
                _about(copy, store.count(), missing).write(folder)

        store.snapshot(folder / PASSAGES, at_this_point)
        yield folder


@contextmanager
def taken_without_service(settings: Settings) -> Iterator[Path]:
    """The same of a data folder that no service holds. Raises `DataDirLocked` besides."""
    from app.passages.edge import EdgeStore

    registry = _registry_file(settings)
    space = recorded_index_space(settings.passages_dir)
    if settings.qdrant_url is not None:
        raise Conflict(
            "The passages are on a Qdrant server (ADIABAT_QDRANT_URL), and a backup holds a data folder alone: take a "
            "snapshot of the collection there; docs/operations.md has the whole."
        )
    if space is None or not registry.exists():
        raise NotFound(f"There is nothing to back up in {settings.data_dir}: no service has run on it.")
    with data_dir_lock(settings.data_dir):
        fields = settings.indexed_fields
        store = EdgeStore(settings.passages_dir, space, indexed_fields=fields, index_after=sys.maxsize)
        try:
            with taken(settings, ArtifactStore(settings.artifacts_dir), store) as folder:
                yield folder
        finally:
            store.close()


def _registry_file(settings: Settings) -> Path:
    if settings.artifacts_url is not None:
        raise Conflict(
            "The artifacts are in a bucket (ADIABAT_ARTIFACTS_URL), and a backup holds a data folder alone: keep the "
            "bucket's versions, and back up the registry and the passages by themselves; docs/operations.md has the "
            "whole."
        )
    if settings.registry_url is None:
        return settings.registry_path
    url = read_url(settings.registry_url)
    if url.get_backend_name() == POSTGRESQL:
        raise Conflict(
            "The registry is in PostgreSQL (ADIABAT_REGISTRY_URL), and a backup holds a data folder alone: take one of "
            "that database with pg_dump; docs/operations.md has the whole."
        )
    return Path(str(url.database))


def _link_named(registry: sqlite3.Connection, artifacts: ArtifactStore, target: Path) -> list[str]:
    """Links what the registry names, and the exported graphs; returns what is not there."""
    folders = [artifacts.folder(key) for (key,) in registry.execute(NAMED_ENCODERS)]
    folders += [artifacts.dataset(digest) for digest in sorted(_datasets(registry))]
    for folder in folders:
        _link_tree(folder, target / folder.relative_to(artifacts.root))
    for graph in artifacts.graphs.iterdir():
        if not graph.name.startswith("."):  # one that is being exported
            _link_tree(graph, target / artifacts.graphs.name / graph.name)
    return [str(folder.relative_to(artifacts.root)) for folder in folders if not folder.is_dir()]


def _datasets(registry: sqlite3.Connection) -> set[str]:
    needed = {digest for (digest,) in registry.execute(NAMED_DATASETS)}
    for status, finished_at, digests in registry.execute(READ_BY_JOBS):
        if keeps_files(JobStatus(status), finished_at, time.time()):
            needed.update(json.loads(digests).values())
    return needed


def _link_tree(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and not path.is_symlink():
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(path, link)


def _link(path: Path, link: Path) -> None:
    try:
        os.link(path, link)
    except OSError:  # a file system without links
        shutil.copyfile(path, link)


def _forget_prepared(registry: sqlite3.Connection) -> None:
    """Training sets stay behind, so these are prepared again."""
    registry.execute(
        "UPDATE tuning_jobs SET status = ? WHERE status = ?", (JobStatus.QUEUED.value, JobStatus.PREPARED.value)
    )


def _about(registry: sqlite3.Connection, passages: int, missing: list[str]) -> About:
    [schema] = registry.execute("SELECT version_num FROM alembic_version").fetchone()
    if (active := registry.execute(ACTIVE).fetchone()) is None:
        raise NotFound("There is nothing to back up yet: the first start of the service has not ended.")
    encoder, generation = active
    return About.now(
        schema=schema,
        created_at=time.time(),
        encoder=encoder,
        generation=generation,
        encoders=len(registry.execute(NAMED_ENCODERS).fetchall()),
        passages=passages,
        missing=missing,
    )
