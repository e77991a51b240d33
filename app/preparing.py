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
ACTIVATED = "activated"


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
        for job in self._registry.jobs.with_status(JobStatus.PREPARING):
            self._registry.jobs.move(job.id, JobStatus.QUEUED, only_from=(JobStatus.PREPARING,))
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
                self._registry.jobs.interrupt(silent_for_s=TRAINER_SILENT_S)
            except AdiabatError as error:  # the registry is away: searches go on, jobs wait
                log.warning("Tuning jobs wait: %s", error.detail)
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _prepare_next(self) -> None:
        for job in self._registry.jobs.with_status(JobStatus.QUEUED):
            if self._stop.is_set():
                return
            if self._registry.jobs.move(job.id, JobStatus.PREPARING, only_from=(JobStatus.QUEUED,)):
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
        if self._registry.jobs.move(
            job.id,
            JobStatus.CANCELLED,
            only_from=(JobStatus.CANCELLING,),
            reason="cancelled before it started",
        ):
            shutil.rmtree(self._settings.jobs_dir / job.id, ignore_errors=True)

    def _activate_finished(self) -> None:
        for job in self._registry.jobs.with_status(JobStatus.SUCCEEDED):
            if job.activate != ACTIVATE_IF_GATE or job.encoder_id is None:
                continue
            record = self._registry.encoders.by_id(job.encoder_id)
            outcome = ACTIVATED
            try:
                self._switcher.activate(record.name, record.version, reason="job")
            except AdiabatError as error:
                outcome = "activation-failed"
                log.error("Job %s made %s, which could not be activated: %s", job.id, record.key, error.detail)
            self._registry.jobs.settle_activation(job.id, outcome)
