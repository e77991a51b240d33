"""A new tuning, looked at before anything starts: whoever asks for it, a person or the standing order."""

from collections.abc import Callable

from sqlalchemy import Connection

from app.datasets import DatasetStore
from app.errors import Conflict, InvalidField
from app.judgments import NAME as JUDGMENTS
from app.registry import EncoderRecord, EncoderState, JobRecord, NewJob, Registry
from app.wire.tuning_jobs import TuningJobCreate

DEV = "dev"
HINT = "Tuning needs 'train' and 'dev'; a guard is 'dataset' (split 'test') or 'dataset:split'."


def queue_tuning(
    wanted: TuningJobCreate,
    registry: Registry,
    datasets: DatasetStore,
    also: Callable[[Connection, JobRecord], None] | None = None,
) -> JobRecord:
    """`also` is done in the transaction that queues it.

    Raises `InvalidField`, `BadDataset`, `DatasetNotFound`, `EncoderNotFound`, `Conflict`.
    """
    check_guards(wanted.guards)
    parent = usable(registry.encoders.find(wanted.parent))
    if parent.base_digest != registry.encoders.find("base@1").digest:
        raise Conflict(
            f"The parent {parent.key} is not in the base's lineage; start from the base, or from an encoder "
            "that was tuned from it."
        )
    if wanted.dataset == JUDGMENTS:
        datasets.judged().require_pairs()
    read = [(wanted.dataset, "train"), (wanted.dataset, DEV), *splits_of(wanted.guards)]
    with datasets.held(read):
        return registry.jobs.add(
            NewJob(
                name=wanted.name,
                parent_id=parent.id,
                dataset=wanted.dataset,
                guards=wanted.guards,
                dataset_digests={record.name: record.digest for record in datasets.fixed(read, HINT)},
                recipe=wanted.recipe.model_dump(mode="json"),
                gate=wanted.gate.model_dump(mode="json"),
                activate=wanted.activate,
            ),
            also,
        )


def check_guards(guards: list[str]) -> None:
    """Raises `InvalidField`."""
    if DEV in {guard.partition(":")[0] for guard in guards}:
        raise InvalidField(
            "guards", f"{DEV!r} is what a job's own dev split is called in its result; rename the dataset."
        )


def splits_of(guards: list[str]) -> list[tuple[str, str]]:
    return [(name, split or "test") for name, _, split in (guard.partition(":") for guard in guards)]


def usable(parent: EncoderRecord) -> EncoderRecord:
    """Raises `Conflict`."""
    if parent.state in (EncoderState.DELETED, EncoderState.BROKEN):
        raise Conflict(f"The parent {parent.key} is {parent.state}.")
    return parent
