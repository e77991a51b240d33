"""The service's half of a tuning job: prepare its training set, and activate what it made if asked.

One background thread. It owns nothing a restart could not do again: a job found in `preparing` at start is
prepared anew, and an export that is already complete is left alone.
"""

import logging
import shutil
import threading

from app.encoders.switching import Switcher
from app.errors import AdiabatError
from app.passages import PassageStore
from app.registry import JobRecord, JobStatus, Registry
from app.settings import Settings

log = logging.getLogger("adiabat.jobs")
POLL_S = 0.5
TRAINER_SILENT_S = 120  # a trainer beats every second; one this silent is dead, wherever it ran
ACTIVATE_IF_GATE = "if-gate-passes"


class JobKeeper:
    def __init__(self, registry: Registry, store: PassageStore, switcher: Switcher, settings: Settings) -> None:
        self._registry = registry
        self._store = store
        self._switcher = switcher
        self._settings = settings
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A job was made: look now instead of at the next interval."""
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._prepare_next()
                self._activate_finished()
                self._sweep()
                self._registry.jobs.interrupt(silent_for_s=TRAINER_SILENT_S)
            except AdiabatError as error:  # the registry is away: searches go on, jobs wait
                log.warning("Tuning jobs wait: %s", error.detail)
            except Exception:  # a bug must not end the only thread that keeps jobs going
                log.exception("A tuning job could not be looked after")
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

    def _prepare(self, job: JobRecord) -> None:
        try:
            folder = self._settings.training_set_dir(job.id)
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._store.export(folder)
        except (AdiabatError, OSError) as error:
            log.warning("Job %s could not be prepared: %s", job.id, error)
            reason = f"The training set could not be prepared: {error}"
            self._registry.jobs.move(job.id, JobStatus.FAILED, only_from=(JobStatus.PREPARING,), reason=reason)
        self._registry.jobs.move(job.id, JobStatus.PREPARED, only_from=(JobStatus.PREPARING,))

    def _sweep(self) -> None:
        """Training sets of jobs that have ended; each holds every vector of the store."""
        if self._settings.jobs_dir.exists():
            ended = {job.id for job in self._registry.jobs.all() if job.finished}
            for folder in self._settings.jobs_dir.iterdir():
                if folder.name in ended:
                    shutil.rmtree(folder, ignore_errors=True)

    def _activate_finished(self) -> None:
        for job in self._registry.jobs.with_status(JobStatus.SUCCEEDED):
            if job.activate != ACTIVATE_IF_GATE or job.activation is not None or job.encoder_id is None:
                continue
            record = self._registry.encoders.by_id(job.encoder_id)
            outcome = "activated"
            try:
                self._switcher.activate(record.name, record.version, reason="job")
            except AdiabatError as error:
                outcome = f"failed: {error.detail}"
                log.error("Job %s made %s, which could not be activated: %s", job.id, record.key, error.detail)
            self._registry.jobs.settle_activation(job.id, outcome)
