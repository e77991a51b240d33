"""What the registry knows of one tuning job, and what a new one needs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Training set, checkpoints and dataset content of an interrupted job wait this long for a resume.
KEEP_INTERRUPTED_S = 7 * 24 * 3600.0


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for the service to prepare its training set
    PREPARING = "preparing"  # the service is writing the training set
    PREPARED = "prepared"  # waits for a trainer (shown to clients as queued)
    RUNNING = "running"  # a trainer tunes
    EVALUATING = "evaluating"  # a trainer measures dev and guards
    SUCCEEDED = "succeeded"  # published and registered
    REJECTED = "rejected"  # registered, but the gate said no
    FAILED = "failed"  # ended by an error; `reason` says which
    CANCELLING = "cancelling"  # asked to stop, not yet stopped
    CANCELLED = "cancelled"  # stopped because somebody asked
    INTERRUPTED = "interrupted"  # its trainer died or the disk was full; it can be resumed

    @property
    def shown(self) -> str:
        """As clients see it: whether the training set is ready makes no difference to them."""
        return JobStatus.QUEUED if self is JobStatus.PREPARED else self


FINISHED = frozenset(
    {JobStatus.SUCCEEDED, JobStatus.REJECTED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.INTERRUPTED}
)
ENDED_FOR_GOOD = FINISHED - {JobStatus.INTERRUPTED}
AT_TRAINER = (JobStatus.RUNNING, JobStatus.EVALUATING, JobStatus.CANCELLING)


def keeps_files(status: JobStatus, finished_at: float | None, now: float) -> bool:
    """Whether somebody may still read the files of a job in this state."""
    if status is JobStatus.INTERRUPTED:
        return finished_at is not None and now - finished_at < KEEP_INTERRUPTED_S
    return status not in FINISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    id: str
    name: str
    parent_id: int
    dataset: str
    guards: list[str]
    dataset_digests: dict[str, str]
    recipe: dict[str, Any]
    gate: dict[str, Any]
    activate: str
    activation: str | None  # what came of `activate`, once it was tried
    status: JobStatus
    progress: dict[str, Any]
    result: dict[str, Any] | None
    reason: str | None
    encoder_id: int | None
    worker: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    heartbeat_at: float | None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob:
    name: str
    parent_id: int
    dataset: str
    guards: list[str]
    dataset_digests: dict[str, str]
    recipe: dict[str, Any]
    gate: dict[str, Any]
    activate: str
