"""Artifacts in a bucket, for services and trainers with folders of their own.

The bucket is what counts. The folder holds copies of what was used here: all of it may be lost, and what was not used
for longest leaves where it takes too much. Graphs, the engine's copies of weights and matrices are made here.
"""

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from app.beir import digest
from app.bucket import Bucket, Content, Damaged, Misconfigured, all_files
from app.encoders.artifacts import (
    BASE_KEY,
    CHECKPOINTS,
    DATASETS,
    ENCODERS,
    JOBS,
    MANIFEST,
    TRAINING_SET,
    ArtifactStore,
)
from app.encoders.files import fsync_tree
from app.errors import AdiabatError, BadDataset, Conflict, EncoderBroken, EncoderNotFound, JobNotFound, Unavailable
from app.registry import EncoderState, JobStatus, Registry
from app.registry.job_records import ENDED_FOR_GOOD, keeps_files
from app.settings import Settings

log = logging.getLogger("adiabat.artifacts")

IN_USE_S = 600.0  # whoever asked for a copy reads it for at most so long
FRESH_S = 3600.0  # a dataset that came just now may not have its record yet


def open_artifacts(settings: Settings, registry: Registry) -> ArtifactStore:
    """A folder, or the bucket of ADIABAT_ARTIFACTS_URL. Raises `Unavailable` where that cannot be used as it is set."""
    if settings.artifacts_url is None:
        return ArtifactStore(settings.artifacts_dir)
    return open_shared(settings.artifacts_url, settings, registry)


def open_shared(url: str, settings: Settings, registry: Registry) -> "SharedArtifacts":
    """As `open_artifacts`."""
    bucket = Bucket(url, writer=writer(registry))
    try:
        bucket.check()
    except Misconfigured:
        raise
    except Unavailable as error:  # what is active may be here: a restart must not end searches
        log.warning(error.detail)
    return SharedArtifacts(
        settings.artifacts_dir,
        bucket,
        max_bytes=settings.artifacts_cache_bytes,
        pinned=lambda: _pinned(registry),
    )


def writer(registry: Registry) -> str:
    """The registry, as other services know it, whoever they are there.

    One in SQLite is known by host and path. A copy of it elsewhere may go on beside the first, so it is another one:
    it reads what the first put into the bucket, and neither takes its names nor clears up after it.
    """
    database = registry.database
    if database.on_postgresql:
        where = {name: value for name, value in database.url.query.items() if name in ("host", "port")}
        bare = database.url.set(drivername="postgresql", username=None, password=None, query=where)
        return bare.render_as_string()
    return f"{socket.gethostname()}:{Path(database.name).resolve()}"


class SharedArtifacts(ArtifactStore):
    """`pinned` gives the keys that stay whatever they take, beside the base; `max_bytes` bounds copies and weights."""

    shared = True

    def __init__(
        self,
        root: Path,
        bucket: Bucket,
        *,
        max_bytes: int,
        pinned: Callable[[], set[str]],
        in_use_s: float = IN_USE_S,
    ) -> None:
        super().__init__(root)
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._pinned = pinned
        self._in_use_s = in_use_s

    @property
    def where(self) -> str:
        return self._bucket.url

    def has(self, key: str) -> bool:
        """In the bucket; where that does not answer a copy will do."""
        try:
            return self._content(f"{ENCODERS}/{key}") is not None
        except Unavailable:
            if super().has(key):
                return True
            raise

    def require_unclaimed(self) -> None:
        """For a registry that has no base yet. Raises `Conflict` where another one's encoders are in the bucket.

        Or where its own are: then it was lost. A first start that was cut off leaves no more than the base.
        """
        content = self._content(f"{ENCODERS}/{BASE_KEY}")
        if content is not None and content.writer != self._bucket.writer:
            raise Conflict(
                f"{self.where} holds the encoders of the registry {content.writer}, and this service's registry is "
                "empty: set ADIABAT_REGISTRY_URL as there, or ADIABAT_ARTIFACTS_URL to another prefix."
            )
        others = sorted(set(self._bucket.names(ENCODERS)) - {f"{ENCODERS}/{BASE_KEY}"})
        if others:
            raise Conflict(
                f"{self.where} holds {others[0].removeprefix(f'{ENCODERS}/')} of an earlier registry, and this "
                "service's is empty: restore that registry from a backup, or set ADIABAT_ARTIFACTS_URL to another "
                "prefix to start anew."
            )

    def folder(self, key: str) -> Path:
        """Brought here where it is not. Raises `EncoderBroken` where it is gone or not what was written."""
        here = self.root / key
        if not here.exists():
            if not self._bring_named(f"{ENCODERS}/{key}", here):
                raise EncoderBroken(
                    f"{key} is not in {self.where}: it was removed there; restore it, or register it again."
                )
            self.trim(key)
        with suppress(FileNotFoundError):
            os.utime(here)
        return here

    def renew(self, key: str) -> bool:
        super().remove(key)
        return True

    @contextmanager
    def placing(self, staged: Path) -> Iterator[Callable[[str], None]]:
        content = self._bucket.upload(staged, [path for path in all_files(staged) if path.name != MANIFEST])
        placed = []

        def place(key: str) -> None:
            placed.append(key)
            last = self._bucket.upload(staged, [staged / MANIFEST], content)
            whole = replace(content, files=(*content.files, *last.files))
            self._bucket.name(f"{ENCODERS}/{key}", whole, new=True)
            self.place(staged, key)

        try:
            yield place
        except BaseException:
            for key in placed:  # perhaps without a row, and the next one of this name is another
                shutil.rmtree(self.root / key, ignore_errors=True)
            raise
        finally:
            if not placed:  # once it has a name, nobody but the registry knows whether it is to stay
                with suppress(AdiabatError):
                    self._bucket.discard(content)
        self.trim(*placed)

    def remove(self, key: str) -> None:
        self.withdraw(f"{ENCODERS}/{key}")
        super().remove(key)

    def set_aside(self, key: str) -> None:
        """A copy that no row names; nothing is lost with it."""
        shutil.rmtree(self.root / key, ignore_errors=True)

    def dataset(self, content: str) -> Path:
        """Brought here where it is not. Raises `BadDataset` where it is not what was written."""
        here = super().dataset(content)
        if not here.exists():
            try:
                there = self._bring_named(f"{DATASETS}/{here.name}", here)
            except EncoderBroken as error:
                raise BadDataset(f"{error.detail} Upload the dataset again.") from error
            if there and digest(here) != content:
                shutil.rmtree(here)
                raise BadDataset(f"{self.where}/{DATASETS}/{here.name}.json names other files; upload it again.")
        return here

    @contextmanager
    def keeping(self, staged: Path, content: str) -> Iterator[Callable[[], None]]:
        uploaded = self._bucket.upload(staged, all_files(staged))  # though it is there already: that may be damaged
        named = False

        def keep() -> None:
            nonlocal named
            keep_here()
            named = True  # or nobody knows
            self._bucket.exchange(f"{DATASETS}/{content.removeprefix('sha256:')}", uploaded)

        try:
            with super().keeping(staged, content) as keep_here:
                yield keep
        finally:
            if not named:
                with suppress(AdiabatError):
                    self._bucket.discard(uploaded)

    def remove_dataset(self, content: str) -> None:
        super().remove_dataset(content)
        self.withdraw(f"{DATASETS}/{content.removeprefix('sha256:')}")

    def share(self, name: str, folder: Path, globs: Sequence[str] = ("**/*",)) -> None:
        paths = {path for glob in globs for path in folder.glob(glob) if path.is_file()}
        if paths:
            self._bucket.publish(name, folder, paths)

    def obtain(self, name: str, folder: Path) -> None:
        self._bring_named(name, folder)

    def withdraw(self, name: str, *, damaged: bool = False) -> None:
        try:
            self._bucket.remove(name, whosever=damaged)
        except Unavailable as error:
            log.warning("%s stays in the bucket until the next sweep: %s", name, error.detail)
        except Conflict as error:
            log.warning("%s stays in the bucket: %s", name, error.detail)

    def left_datasets(self, registry: Registry) -> list[str]:
        """Digests of contents in the bucket that the registry once had and has no use for.

        None was released at the end of its job where the trainer, which tidies too, was faster, or the bucket away.
        """
        there = {name.partition("/")[2] for name in self._bucket.names(DATASETS)}
        done_with = registry.datasets.digests_known() - registry.datasets.digests_needed()
        return [each for each in done_with if (name := each.removeprefix("sha256:")) in there and self._is_ours(name)]

    def _is_ours(self, dataset: str) -> bool:
        with suppress(EncoderBroken):
            content = self._content(f"{DATASETS}/{dataset}")
            return content is not None and content.writer == self._bucket.writer
        return False

    def sweep(self, registry: Registry) -> None:
        """Remove from the bucket what this registry is done with, and set aside what it never heard of.

        Datasets that it is done with are not: they are released, in turn with whoever keeps one.
        """
        kinds = ENCODERS, DATASETS, JOBS
        for name in self._bucket.sweep(kinds, lambda: needed(registry), lambda name: is_finished(registry, name)):
            log.info("%s/%s is not needed any more: it is removed, or set aside under lost/", self.where, name)

    def forget(self, registry: Registry, jobs_dir: Path) -> None:
        """Remove copies of datasets and jobs that no job needs any more; other hosts cannot."""
        datasets = [folder for folder in self.datasets.iterdir() if time.time() - _used_at(folder) > FRESH_S]
        jobs = list(jobs_dir.iterdir()) if jobs_dir.exists() else []
        wanted = needed(registry)
        gone = [folder for folder in datasets if f"{DATASETS}/{folder.name}" not in wanted]
        gone += [folder for folder in jobs if is_finished(registry, f"{JOBS}/{folder.name}/{CHECKPOINTS}")]
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)

    def trim(self, *staying: str) -> None:
        """Let copies go, the least recently used first, until the rest fits; pinned ones and `staying` stay."""
        copies = sorted((folder for folder in map(self.root.joinpath, self.keys())), key=_used_at)
        if _bytes(*copies, self.weights) <= self._max_bytes:
            return
        try:
            stay = {BASE_KEY, *staying, *self._pinned()}
        except AdiabatError:  # the registry is away: what must stay is not known
            return
        for folder in copies:
            if _bytes(*copies, self.weights) <= self._max_bytes:
                return
            if folder.name not in stay and time.time() - _used_at(folder) >= self._in_use_s:
                super().remove(folder.name)

    def _content(self, name: str) -> Content | None:
        try:
            return self._bucket.content(name)
        except Damaged as error:
            raise EncoderBroken(str(error)) from error

    def _bring_named(self, name: str, here: Path) -> bool:
        """False where nothing has the name. Begun anew where it was replaced meanwhile: its objects went with that."""
        content = self._content(name)
        while content is not None:
            try:
                self._bring(content, here)
                return True
            except EncoderBroken:
                before, content = content, self._content(name)
                if content == before:
                    raise
        return False

    def _bring(self, content: Content, here: Path) -> None:
        """Whole or not at all where `here` does not exist; else file by file."""
        try:
            with self.staging() as staged:
                self._bucket.fetch(content, staged)
                fsync_tree(staged)
                here.parent.mkdir(parents=True, exist_ok=True)
                try:
                    staged.rename(here)
                except OSError:
                    if not here.exists():
                        raise
                    for entry in content.files:
                        (here / entry.path).parent.mkdir(parents=True, exist_ok=True)
                        (staged / entry.path).replace(here / entry.path)
        except Damaged as error:
            raise EncoderBroken(f"{error} Restore it from a version or a backup of the bucket.") from error
        except OSError as error:
            raise Unavailable(f"{here.name} could not be brought from {self.where} ({error}).") from error


def _pinned(registry: Registry) -> set[str]:
    return {registry.encoders.by_id(each).key for each in registry.activations.roles()}


def needed(registry: Registry) -> set[str]:
    """Every name in the bucket that the registry knows a use for."""
    encoders = {f"{ENCODERS}/{each.key}" for each in registry.encoders.all()}
    contents = {f"{DATASETS}/{each.removeprefix('sha256:')}" for each in registry.datasets.digests_needed()}
    jobs, at = set(), registry.database.now()
    for job in registry.jobs.with_status(*(status for status in JobStatus if status not in ENDED_FOR_GOOD)):
        if keeps_files(job.status, job.finished_at, at):
            jobs |= {f"{JOBS}/{job.id}/{TRAINING_SET}", f"{JOBS}/{job.id}/{CHECKPOINTS}"}
    return encoders | contents | jobs


def is_finished(registry: Registry, name: str) -> bool:
    """Whether the registry knows of it, and that nobody will ask for it again."""
    kind, _, rest = name.partition("/")
    if kind == ENCODERS:
        with suppress(EncoderNotFound):
            return registry.encoders.find(rest).state is EncoderState.DELETED
    if kind == JOBS:
        with suppress(JobNotFound):
            job = registry.jobs.find(rest.partition("/")[0])
            return not keeps_files(job.status, job.finished_at, registry.database.now())
    return False


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process was faster
        return 0.0


def _bytes(*folders: Path) -> int:
    total = 0
    for path in (path for folder in folders for path in all_files(folder)):
        with suppress(FileNotFoundError):  # likewise
            total += path.stat().st_size
    return total
