"""The worker: claim a job, tune or evaluate, write how it ended; wait; until told to stop."""

import errno
import logging
import math
import os
import socket
import threading
import time
import uuid
from typing import Any

from safetensors import SafetensorError

from app.encoders.admission import AdmissionRules, Registrar
from app.encoders.artifacts import CHECKPOINTS, JOBS, TRAINING_SET
from app.encoders.child import Limits
from app.encoders.shared_artifacts import SharedArtifacts, open_artifacts
from app.errors import AdiabatError, EncoderBroken, Unavailable
from app.observe import logs
from app.registry import AnyJob, JobRecord, JobStatus, Registry
from app.registry.job_records import AT_TRAINER, AT_WORK, MAX_ATTEMPTS
from app.registry.silence import Silence
from app.settings import Settings
from trainer.evaluation import run_evaluation
from trainer.giving_way import be_idle
from trainer.heartbeat import Heartbeat
from trainer.job import run_job
from trainer.ranks import ALONE, Ranks, RanksLost
from trainer.stopping import Stopped
from trainer.workplace import Workplace

log = logging.getLogger("adiabat.trainer")

POLL_S = 0.5


class TrainingSetDamaged(EncoderBroken):
    """What the service prepared cannot be used."""


class Worker:
    """One trainer, the first of `ranks`. `stop()` only sets an event; a running job ends within one step of it."""

    def __init__(self, settings: Settings, name: str | None = None, ranks: Ranks = ALONE) -> None:
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._holder = f"{self.name}/{uuid.uuid4().hex}"  # the next trainer may have the same name
        self._settings = settings
        self._ranks = ranks
        self._stop = threading.Event()
        self._registry = Registry(settings.registry_at)
        self._silence = Silence(self._registry.jobs, settings.trainer_lease_s)
        self._artifacts = open_artifacts(settings, self._registry)
        self._artifacts.sweep_half_made()
        rules = AdmissionRules(
            min_cosine=settings.probe_min_cosine,
            min_overlap=settings.probe_min_overlap,
            engine=settings.engine,
            threads=settings.threads,
            limits=Limits(memory_bytes=settings.examine_bytes, timeout_s=settings.examine_timeout_s),
        )
        self._registrar = Registrar(self._artifacts, self._registry, rules, overlap=None)

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Until it is stopped. Raises `RanksLost`, once the job is marked, where another process of it is gone."""
        try:
            self._say_where()
            with Heartbeat(self._registry, self.name, self._holder, self._stop) as heartbeat:
                be_idle()  # from here on, and not the heartbeat
                while not self._stop.is_set():
                    if not self._work(heartbeat):
                        self._ranks.rest()
                        self._stop.wait(POLL_S)
            self._ranks.leave()
        finally:
            self._registry.close()

    def _say_where(self) -> None:
        """A misspelt folder has no jobs either: whoever started a trainer on it learns why nothing happens."""
        where = self._settings.data_dir.resolve()
        if self._registry.encoders.all(limit=1):
            log.info("waiting for jobs of the service on %s", where)
        else:
            log.warning(
                "no service has ever started on %s, so there are no jobs: start 'adiabat serve' on it, or name the "
                "service's folder with --data-dir or ADIABAT_DATA_DIR",
                where,
            )

    def _work(self, heartbeat: Heartbeat) -> bool:
        """One job, if there is one."""
        try:
            for silent in self._silence.look():  # this trainer is alive: what another one left can go on here
                if self._registry.jobs.interrupt(silent=silent, hand_on=True):
                    log.warning("job %s: its trainer %s went silent", silent.id, silent.worker)
            job = self._registry.jobs.claim(self._holder)
            if job is not None:
                with logs.bound(job=job.id):
                    self._run(job, heartbeat)
            return job is not None
        except RanksLost:
            raise
        except AdiabatError as error:  # the registry is busy or away: wait for it
            log.warning("%s", error.detail)
            return False

    def _run(self, job: AnyJob, heartbeat: Heartbeat) -> None:
        log.info("job %s: %s", job.id, _what(job))
        began = time.monotonic()
        heartbeat.follow(job.id)
        place = Workplace(
            registry=self._registry,
            artifacts=self._artifacts,
            registrar=self._registrar,
            heartbeat=heartbeat,
            training_set=self._settings.training_set_dir(job.id),
            replay=self._settings.replay_file(job.id),
            checkpoints=self._settings.checkpoints_dir(job.id),
            ranks=self._ranks,
        )
        try:
            self._obtain(job, place)
            if isinstance(job, JobRecord):
                run_job(job, place)  # its end is written with its encoder, in one transaction
            elif not self._end(job, JobStatus.SUCCEEDED, only_from=AT_WORK, result=run_evaluation(job, place)):
                raise Stopped
        except Exception as error:  # whatever ended it, the job must not stay at work for ever
            heartbeat.unfollow()
            cancelled = heartbeat.cancelled or self._registry.jobs.find(job.id).status is JobStatus.CANCELLING
            if not self._goes_on(job, error):
                status, reason = _ending(error, job, cancelled=cancelled)
                if status is JobStatus.FAILED:
                    log.error("job %s failed", job.id, exc_info=None if isinstance(error, AdiabatError) else error)
                self._end(job, status, reason=reason)
            if isinstance(error, RanksLost):
                raise
        else:
            heartbeat.unfollow()
        if isinstance(self._artifacts, SharedArtifacts):
            self._artifacts.forget(self._registry, self._settings.jobs_dir)
        took_s = time.monotonic() - began
        log.info("job %s: %s after %.0f s", job.id, self._registry.jobs.find(job.id).status, took_s)

    def _obtain(self, job: AnyJob, place: Workplace) -> None:
        """What the service and the trainers before this one left, where they have other disks."""
        if not place.training_set.exists():
            shared = f"{JOBS}/{job.id}/{TRAINING_SET}"
            try:
                self._artifacts.obtain(shared, place.training_set)
            except EncoderBroken as error:
                self._artifacts.withdraw(shared, damaged=True)  # what is named there would not be sent again
                raise TrainingSetDamaged(str(error.__cause__ or error)) from error
        try:
            self._artifacts.obtain(f"{JOBS}/{job.id}/{CHECKPOINTS}", place.checkpoints)
        except EncoderBroken as error:
            place.say(job, f"the shared checkpoint cannot be used ({error.detail}); an older one is looked for")

    def _goes_on(self, job: AnyJob, error: Exception) -> bool:
        """Whether somebody else has the job now, which `error` ended here."""
        if isinstance(error, Stopped):
            return self._handed_on(job)
        if isinstance(error, TrainingSetDamaged) and job.attempts < MAX_ATTEMPTS:
            reason = f"its training set in the bucket is damaged, and is made anew: {error.detail}"
            log.warning("job %s: %s", job.id, reason)
            return self._registry.jobs.send_back(job, reason)
        return False

    def _handed_on(self, job: AnyJob) -> bool:
        """Whether another trainer is there, which goes on with it at once."""
        ages_s = self._registry.workers.ages_s()
        others = [age_s for name, age_s in ages_s.items() if name != self.name]
        return min(others, default=math.inf) < self._settings.trainer_lease_s and self._registry.jobs.hand_on(job)

    def _end(
        self, job: AnyJob, status: JobStatus, *, only_from: tuple[JobStatus, ...] = AT_TRAINER, **values: Any
    ) -> bool:
        return self._registry.jobs.move(job.id, status, only_from=only_from, held_by=self._holder, **values)


def _what(job: AnyJob) -> str:
    if isinstance(job, JobRecord):
        return f"tuning {job.name} on {job.dataset}"
    on = [*job.datasets, *(["logged queries"] if job.replay else [])]
    return f"evaluating {len(job.encoder_ids)} encoders on {', '.join(on)}"


def _ending(error: Exception, job: AnyJob, *, cancelled: bool) -> tuple[JobStatus, str]:
    """How a job ended by `error` is marked, and why. What may be over tomorrow interrupts; the rest fails."""
    if isinstance(error, Stopped) and cancelled:
        return JobStatus.CANCELLED, "cancelled while it ran"
    if isinstance(error, Stopped):
        return JobStatus.INTERRUPTED, f"the trainer was stopped before the job ended; {job.how_to_resume}"
    if _disk_full(error):
        return JobStatus.INTERRUPTED, f"the disk is full ({error}); free some space, then {job.how_to_resume}"
    if isinstance(error, Unavailable):
        return JobStatus.INTERRUPTED, f"{error.detail} Then {job.how_to_resume}"
    if isinstance(error, AdiabatError):
        return JobStatus.FAILED, error.detail
    return JobStatus.FAILED, f"{type(error).__name__}: {error}"


def _disk_full(error: Exception) -> bool:
    """Safetensors tells the operating system's error only in words."""
    if isinstance(error, SafetensorError):
        return f"os error {errno.ENOSPC}" in str(error)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
