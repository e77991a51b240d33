"""The service's half of a job: prepare what it reads of the store, and activate what a tuning made if asked.

One background thread. It owns nothing a restart could not do again: a job found in `preparing` at start is
prepared anew, and an export that is already complete is left alone.
"""

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from app.encoders.artifacts import CHECKPOINTS, JOBS, TRAINING_SET, ArtifactStore
from app.encoders.shared_artifacts import SharedArtifacts
from app.encoders.switching import Switcher
from app.errors import AdiabatError, EncoderBroken, JobNotFound, Overloaded, Unavailable
from app.passages import PassageStore
from app.registry import AnyJob, EvaluationRecord, JobRecord, JobStatus, Registry
from app.registry.job_records import keeps_files
from app.registry.silence import Silence
from app.replaying import write_replay
from app.settings import Settings

log = logging.getLogger("adiabat.jobs")
POLL_S = 0.5
TIDY_EVERY_S = 600.0
ACTIVATE_IF_GATE = "if-gate-passes"


class JobKeeper:
    """`release_datasets` is told the digests that a job which has ended read.

    Of several services the one that `leads` looks after jobs. Two may think so for a moment, when one was paused:
    whatever is done here may be done twice.
    """

    def __init__(
        self,
        registry: Registry,
        artifacts: ArtifactStore,
        store: PassageStore,
        switcher: Switcher,
        settings: Settings,
        release_datasets: Callable[[Iterable[str]], None],
        leads: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._artifacts = artifacts
        self._next_tidying_at = time.monotonic()
        self._store = store
        self._switcher = switcher
        self._settings = settings
        self._release_datasets = release_datasets
        self._leads = leads
        self._silence = Silence(registry.jobs, settings.trainer_lease_s)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A job was made: look now instead of at the next interval."""
        self._wake.set()

    def stop(self) -> None:
        """The store is to be closed next: an export under way is not waited for."""
        self._stop.set()
        self._wake.set()
        self._store.interrupt()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            leads = (self._prepare_next, self._activate_finished, self._sweep, self._interrupt_silent)
            for step in (self._tidy, *leads):
                try:
                    if step == self._tidy or self._leads():
                        step()
                except AdiabatError as error:  # the registry is away: searches go on, jobs wait
                    log.warning("Jobs wait: %s", error.detail)
                except Exception:  # a bug must end neither the only thread that keeps jobs going nor the other steps
                    log.exception("A job could not be looked after")
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _prepare_next(self) -> None:
        """This thread alone prepares: a job found in `preparing` is one that a crash or an error left there."""
        self._registry.jobs.end_cancelled_before_work()
        for job in self._registry.jobs.with_status(JobStatus.QUEUED, JobStatus.PREPARING):
            if self._stop.is_set():
                return
            if self._registry.jobs.move(job.id, JobStatus.PREPARING, only_from=(JobStatus.QUEUED, JobStatus.PREPARING)):
                self._prepare(job)

    def _prepare(self, job: AnyJob) -> None:
        try:
            folder = self._settings.training_set_dir(job.id)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if job.reads_store:
                shared = f"{JOBS}/{job.id}/{TRAINING_SET}"
                if not folder.exists():  # of a resumed job it may be there, prepared by another service
                    self._obtain(shared, folder)
                self._store.export(folder)
                if isinstance(job, EvaluationRecord) and job.replay is not None:
                    since, limit = job.replay["since"], job.replay["limit"]
                    file = self._settings.replay_file(job.id)
                    write_replay(file, self._registry, self._store, since=since, limit=limit)
                self._artifacts.share(shared, folder)
        except Exception as error:  # whatever it was, the jobs behind this one must come to their turn
            if self._stop.is_set() or not self._leads():
                return  # prepared anew at the next start, or by the service that leads now
            bug = None if isinstance(error, AdiabatError | OSError) else error
            log.warning("Job %s could not be prepared: %s", job.id, error, exc_info=bug)
            self._give_up(job, error)
        self._registry.jobs.move(job.id, JobStatus.PREPARED, only_from=(JobStatus.PREPARING,))

    def _obtain(self, shared: str, folder: Path) -> None:
        """It is derived: one that is damaged there is made anew, as one that is missing."""
        try:
            self._artifacts.obtain(shared, folder)
        except EncoderBroken as error:
            log.warning("The shared training set is made anew: %s", error.__cause__ or error)
            self._artifacts.withdraw(shared, damaged=True)  # what is named there would not be sent again

    def _give_up(self, job: AnyJob, error: Exception) -> None:
        reason = f"The training set could not be prepared: {error}"
        status = JobStatus.FAILED
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or isinstance(error, Unavailable):  # what may be over tomorrow
            status = JobStatus.INTERRUPTED
            held = sum(file.stat().st_size for file in self._settings.jobs_dir.rglob("*") if file.is_file())
            reason += (
                f"; {job.how_to_resume}. Interrupted jobs hold {held / 1e6:.0f} MB: cancelling one frees its part."
            )
        self._registry.jobs.move(job.id, status, only_from=(JobStatus.PREPARING,), reason=reason)

    def _sweep(self) -> None:
        """Training sets and checkpoints of jobs that have ended; each training set holds every vector of the store.

        An interrupted job's stay for a week, or until it is cancelled.
        """
        folders = list(self._settings.jobs_dir.iterdir()) if self._settings.jobs_dir.exists() else []
        at = self._registry.database.now() if folders else 0.0
        for folder in folders:
            with suppress(JobNotFound):  # not ours: the registry may be another one
                job = self._registry.jobs.find(folder.name)
                if not keeps_files(job.status, job.finished_at, at):
                    # In this order: a crash between the two leaves the folder, and both are done again.
                    self._release_datasets(job.dataset_digests.values())
                    for name in (TRAINING_SET, CHECKPOINTS):
                        self._artifacts.withdraw(f"{JOBS}/{job.id}/{name}")
                    shutil.rmtree(folder, ignore_errors=True)

    def _tidy(self) -> None:
        """Where each has a folder of its own: what this one need not keep, and of the leader, what the bucket need not.

        Datasets too: of a job that another service prepared, or whose trainer tidied here, none is released at its
        end.
        """
        if not isinstance(self._artifacts, SharedArtifacts) or time.monotonic() < self._next_tidying_at:
            return
        self._next_tidying_at = time.monotonic() + TIDY_EVERY_S
        self._artifacts.forget(self._registry, self._settings.jobs_dir)
        if self._leads():
            if left := self._artifacts.left_datasets(self._registry):
                self._release_datasets(left)
            self._artifacts.sweep(self._registry)

    def _interrupt_silent(self) -> None:
        """Where another trainer is alive the job goes on there; else it waits for somebody to look."""
        for job in self._silence.look():
            ages_s = self._registry.workers.ages_s()
            another = any(age_s < self._settings.trainer_lease_s for age_s in ages_s.values())
            self._registry.jobs.interrupt(silent=job, hand_on=another)

    def _activate_finished(self) -> None:
        for job in self._registry.jobs.with_status(JobStatus.SUCCEEDED):
            if not isinstance(job, JobRecord) or job.activate != ACTIVATE_IF_GATE:
                continue
            if job.activation is not None or job.encoder_id is None:
                continue
            record = self._registry.encoders.by_id(job.encoder_id)
            outcome = "activated"
            try:
                self._switcher.activate(record.name, record.version, reason="job")
            except (Unavailable, Overloaded) as error:  # what may be over soon: tried again
                log.warning("Job %s made %s, which waits for its activation: %s", job.id, record.key, error.detail)
                continue
            except Exception as error:
                outcome = f"failed: {error}"
                bug = None if isinstance(error, AdiabatError) else error
                log.error("Job %s made %s, which could not be activated: %s", job.id, record.key, error, exc_info=bug)
            self._registry.jobs.settle_activation(job.id, outcome)
