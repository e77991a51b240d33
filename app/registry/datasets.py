"""Which datasets there are: a name, the digest of its content, and what it counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from app.errors import BadDataset, DatasetInUse, DatasetNotFound
from app.registry.audit import Action, record
from app.registry.clock import now
from app.registry.database import Database
from app.registry.job_records import ENDED_FOR_GOOD, FINISHED, JobStatus, keeps_files
from app.registry.tables import audit, datasets, tuning_jobs


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRecord:
    name: str
    digest: str
    counts: dict[str, Any]
    created_at: float


class Datasets:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, name: str, digest: str, counts: dict[str, Any]) -> DatasetRecord:
        with self._database.write() as connection:
            connection.execute(delete(datasets).where(datasets.c.name == name))
            values = {"name": name, "digest": digest, "counts": counts, "created_at": now()}
            row = connection.execute(insert(datasets).values(**values).returning(*datasets.c)).one()
            record(connection, Action.DATASET_PUT, name, digest=digest)
            return DatasetRecord(**row._asdict())

    def get(self, name: str) -> DatasetRecord:
        with self._database.read() as connection:
            row = connection.execute(select(datasets).where(datasets.c.name == name)).one_or_none()
        if row is None:
            raise self._not_found(name)
        return DatasetRecord(**row._asdict())

    def _not_found(self, name: str) -> DatasetNotFound:
        owner = next((each.name for each in self.all() if name in each.counts["splits"]), None)
        meant = f"did you mean '{owner}:{name}'? " if owner else ""
        return DatasetNotFound(
            f"No dataset is named {name!r}; {meant}GET /datasets lists them, PUT /datasets/{name} makes it."
        )

    def with_splits(self, wanted: Sequence[tuple[str, str]], hint: str) -> list[DatasetRecord]:
        """The record of every (name, split), before anything starts.

        Raises `DatasetNotFound`, and `BadDataset` with `hint` for a split that is not there.
        """
        found = []
        for name, split in wanted:
            record = self.get(name)
            if split not in record.counts["splits"]:
                there = ", ".join(record.counts["splits"])
                raise BadDataset(f"The dataset {name!r} has no split {split!r}; it has {there}. {hint}")
            found.append(record)
        return found

    def all(self) -> list[DatasetRecord]:
        with self._database.read() as connection:
            return [
                DatasetRecord(**row._asdict()) for row in connection.execute(select(datasets).order_by(datasets.c.name))
            ]

    def delete(self, name: str) -> str:
        """The digest it had. Raises `DatasetInUse` while an unfinished job was started with it, `DatasetNotFound`."""
        unfinished = tuning_jobs.c.status.not_in([status.value for status in FINISHED])
        with self._database.write() as connection:
            jobs = connection.execute(select(tuning_jobs.c.id, tuning_jobs.c.dataset_digests).where(unfinished))
            if using := [job.id for job in jobs if name in job.dataset_digests]:
                raise DatasetInUse(
                    f"The dataset {name!r} is used by the unfinished job {using[0]}; wait for it, or cancel it first.",
                    jobs=using,
                )
            gone = connection.scalar(delete(datasets).where(datasets.c.name == name).returning(datasets.c.digest))
            if gone is None:
                raise self._not_found(name)
            record(connection, Action.DATASET_DELETED, name, digest=gone)
        return str(gone)

    def forget(self, name: str) -> list[str]:
        """The digest it had, if there was one; jobs that were started with it keep its content."""
        with self._database.write() as connection:
            return list(
                connection.scalars(delete(datasets).where(datasets.c.name == name).returning(datasets.c.digest))
            )

    def digests_known(self) -> set[str]:
        """Of every content that ever had a name here."""
        put = select(audit.c.detail).where(audit.c.action == Action.DATASET_PUT)
        with self._database.read() as connection:
            return {detail["digest"] for detail in connection.scalars(put)}

    def digests_needed(self) -> set[str]:
        """Digests of content that a record names, or that a job reads or may read when it is resumed."""
        at = self._database.now()
        columns = (tuning_jobs.c.status, tuning_jobs.c.finished_at, tuning_jobs.c.dataset_digests)
        perhaps = tuning_jobs.c.status.not_in([status.value for status in ENDED_FOR_GOOD])
        with self._database.read() as connection:
            needed = set(connection.scalars(select(datasets.c.digest)))
            for job in connection.execute(select(*columns).where(perhaps)):
                if keeps_files(JobStatus(job.status), job.finished_at, at):
                    needed.update(job.dataset_digests.values())
        return needed
