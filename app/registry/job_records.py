"""What the registry knows of one job, a tuning or an evaluation, and what a new one needs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

# Training set, checkpoints and dataset content of an interrupted job wait this long for a resume.
KEEP_INTERRUPTED_S = 7 * 24 * 3600.0
# A job at which so many trainers in a row went silent may be what silences them: somebody should look.
MAX_ATTEMPTS = 5


class JobKind(StrEnum):
    TUNING = "tuning"
    EVALUATION = "evaluation"


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for the service to prepare its training set
    PREPARING = "preparing"  # the service is writing the training set
    PREPARED = "prepared"  # waits for a trainer (shown to clients as queued)
    RUNNING = "running"  # a trainer tunes, or measures for an evaluation
    EVALUATING = "evaluating"  # a trainer measures what it tuned on dev and guards
    SUCCEEDED = "succeeded"  # published and registered; of an evaluation: everything was measured
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
AT_WORK = (JobStatus.RUNNING, JobStatus.EVALUATING)
AT_TRAINER = (JobStatus.RUNNING, JobStatus.EVALUATING, JobStatus.CANCELLING)


def keeps_files(status: JobStatus, finished_at: float | None, now: float) -> bool:
    """Whether somebody may still read the files of a job in this state."""
    if status is JobStatus.INTERRUPTED:
        return finished_at is not None and now - finished_at < KEEP_INTERRUPTED_S
    return status not in FINISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """What tunings and evaluations have in common."""

    id: str
    dataset_digests: dict[str, str]
    status: JobStatus
    progress: dict[str, Any]
    result: dict[str, Any] | None
    reason: str | None
    worker: str | None
    attempts: int  # how often a trainer took it since it was queued by somebody
    created_at: float
    started_at: float | None
    finished_at: float | None
    heartbeat_at: float | None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord(_Job):
    """A tuning."""

    name: str
    parent_id: int
    dataset: str
    guards: list[str]
    recipe: dict[str, Any]
    gate: dict[str, Any]
    activate: str
    activation: str | None  # what came of `activate`, once it was tried
    encoder_id: int | None
    reads_store: ClassVar[bool] = True  # its training set holds every vector of the store
    how_to_resume: ClassVar[str] = (
        "resume it ('adiabat jobs resume', POST …/resume) and it goes on from its last checkpoint"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRecord(_Job):
    """A measurement of encoders on datasets."""

    encoder_ids: list[int]  # the base first
    datasets: list[str]  # "dataset:split"
    reads_store: bool  # whether something is searched among the stored passages
    replay: dict[str, Any] | None = None  # {"since", "limit", "sample", "against_id"}: logged queries asked again
    how_to_resume: ClassVar[str] = (
        "resume it ('adiabat evaluate --id', POST …/resume) and it is measured from the start"
    )


AnyJob = JobRecord | EvaluationRecord


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


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEvaluation:
    encoder_ids: list[int]
    datasets: list[str]
    dataset_digests: dict[str, str]
    reads_store: bool
    replay: dict[str, Any] | None = None
