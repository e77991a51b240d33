"""The worker: claim a job, run it, write how it ended; wait; until told to stop."""

import logging
import os
import shutil
import socket
import threading
import time
from typing import Any

from app.encoders.admission import AdmissionRules, Registrar
from app.encoders.artifacts import ArtifactStore
from app.errors import AdiabatError, Unavailable
from app.observe import logs
from app.registry import EncoderState, JobRecord, JobStatus, Registry
from app.registry.job_records import AT_TRAINER
from app.registry.jobs import RESUME
from app.settings import Settings
from trainer.heartbeat import AT_WORK, Heartbeat
from trainer.job import run_job
from trainer.stopping import Stopped

log = logging.getLogger("adiabat.trainer")

POLL_S = 0.5


class Worker:
    """One trainer process. `stop()` only sets an event; a running job ends within one step of it."""

    def __init__(self, settings: Settings, name: str | None = None) -> None:
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._stop = threading.Event()
        self._registry = Registry(settings.registry_path)
        self._artifacts = ArtifactStore(settings.artifacts_dir)
        rules = AdmissionRules(
            min_cosine=settings.probe_min_cosine,
            min_overlap=settings.probe_min_overlap,
            engine=settings.engine,
            threads=settings.threads,
        )
        self._registrar = Registrar(self._artifacts, self._registry, rules, overlap=None)

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        with Heartbeat(self._registry, self.name, self._stop) as heartbeat:
            while not self._stop.is_set():
                try:
                    job = self._registry.jobs.claim(self.name)
                    if job is not None:
                        with logs.bound(job=job.id):
                            self._run(job, heartbeat)
                        continue
                except AdiabatError as error:  # the registry is busy or away: wait for it
                    log.warning("%s", error.detail)
                self._stop.wait(POLL_S)
        self._registry.close()

    def _run(self, job: JobRecord, heartbeat: Heartbeat) -> None:
        log.info("job %s: tuning %s on %s", job.id, job.name, job.dataset)
        began = time.monotonic()
        heartbeat.follow(job.id)
        try:
            record, status, result = run_job(
                job,
                registry=self._registry,
                artifacts=self._artifacts,
                registrar=self._registrar,
                training_set=self._settings.training_set_dir(job.id),
                heartbeat=heartbeat,
            )
            heartbeat.unfollow()
            self._finish(job, status, record, result)
        except Stopped:
            heartbeat.unfollow()
            if heartbeat.cancelled:
                self._end(job, JobStatus.CANCELLED, reason="cancelled")
            else:
                self._end(job, JobStatus.INTERRUPTED, reason="the trainer was stopped before the job ended")
        except AdiabatError as error:
            heartbeat.unfollow()
            self._end(job, JobStatus.FAILED, reason=error.detail)
        except Exception as error:
            heartbeat.unfollow()
            log.exception("job %s failed", job.id)
            self._end(job, JobStatus.FAILED, reason=f"{type(error).__name__}: {error}")
        shutil.rmtree(self._settings.jobs_dir / job.id, ignore_errors=True)
        log.info(
            "job %s: %s after %.0f s",
            job.id,
            self._registry.jobs.get(job.id).status,
            time.monotonic() - began,
        )

    def _finish(self, job: JobRecord, status: JobStatus, record: EncoderRecord, result: dict[str, Any]) -> None:
        """A cancel that came while the encoder was being published wins: what was made is taken back."""
        reason = None if status is JobStatus.SUCCEEDED else f"the gate said no: {'; '.join(result['gate']['reasons'])}"
        values = {"encoder_id": record.id, "result": result, "reason": reason}
        if not self._registry.jobs.move(job.id, status, only_from=AT_WORK, **values):
            self._registry.encoders.set_state(record.id, EncoderState.DELETED)
            self._artifacts.remove(record.key)
            self._end(job, JobStatus.CANCELLED, reason="cancelled")

    def _end(self, job: JobRecord, status: JobStatus, **values: object) -> None:
        self._registry.jobs.move(job.id, status, only_from=AT_TRAINER, **values)
