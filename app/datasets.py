"""Datasets: kept below the artifact store under the digest of their content, in BEIR shape.

A job reads exactly what it was started with: content that a name no longer means stays until no job needs it. The
built-in `judgments` changes all the time and is written out when a job is started on it.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.archives import Entry, unpack
from app.beir import CORPUS, QRELS, QUERIES, check, digest, read_qrels, splits
from app.dataset_lines import write_beir
from app.encoders.artifacts import ArtifactStore
from app.errors import BadDataset, Conflict, DatasetBuiltIn, DatasetNotFound
from app.hub_datasets import HubDataset, fetch
from app.judgments import NAME as JUDGMENTS
from app.judgments import Content, JudgedNow
from app.lock import FileLock
from app.passages import PassageStore
from app.registry import DatasetRecord, Registry
from app.registry.turn import Turn

log = logging.getLogger("adiabat.datasets")

MAX_LISTED = 100
LOOKED_UP_AT_ONCE = 1_000
LINES_HINT = "; lines of JSON are sent with the Content-Type application/x-ndjson"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown:
    """Passages that judgments name and the store has not: how many, and the first of them."""

    count: int
    ids: list[str]


class DatasetStore:
    def __init__(
        self, artifacts: ArtifactStore, registry: Registry, store: PassageStore, judged: JudgedNow, max_bytes: int
    ) -> None:
        self._artifacts = artifacts
        self._registry = registry
        self._store = store
        self._max_bytes = max_bytes
        self._judged_now = judged
        # Nothing is removed between a content's arrival and its record, by another service either.
        lock = FileLock(artifacts.root / ".datasets-lock")
        self._changing = Turn(registry.database, lock) if artifacts.shared else lock

    def all(self) -> list[DatasetRecord]:
        """By name."""
        found = [record for record in self._registry.datasets.all() if record.name != JUDGMENTS]
        with suppress(DatasetNotFound):  # nothing is judged yet
            found.append(self.get(JUDGMENTS))
        return sorted(found, key=lambda record: record.name)

    def get(self, name: str) -> DatasetRecord:
        """Raises `DatasetNotFound`."""
        if name != JUDGMENTS:
            return self._registry.datasets.get(name)
        content = self.judged()
        return DatasetRecord(name=name, digest=content.digest, counts=content.counts, created_at=content.newest)

    def judged(self) -> Content:
        """What `judgments` holds at this moment; nothing is written. Raises `DatasetNotFound`."""
        return self._judged_now.content()

    @contextmanager
    def held(self, wanted: Sequence[tuple[str, str]]) -> Iterator[None]:
        """Within it a content that was `fixed` is not replaced by another's: enough time to make the job.

        Others must not wait for what is sent to a bucket: `judgments` are written out before, and within only what was
        judged meanwhile. Raises as `fixed` does.
        """
        self._write_out_of(wanted)
        with self._changing:
            yield

    def fixed(self, wanted: Sequence[tuple[str, str]], hint: str) -> list[DatasetRecord]:
        """The record of every (name, split), for a job that is to read their content as it is now.

        Raises `DatasetNotFound`, and `BadDataset` with `hint` for a split that is not there.
        """
        self._write_out_of(wanted)
        return self._registry.datasets.with_splits(wanted, hint)

    def put_archive(self, name: str, archive: Path) -> DatasetRecord:
        """Check and keep the archive as `name`. Raises `BadDataset`, `TooLarge`."""
        with self._artifacts.staging() as staging:
            with archive.open("rb") as packed:
                unpack(packed, staging, max_bytes=self._max_bytes, refused=BadDataset, choose=_wanted, hint=LINES_HINT)
            return self._keep(name, staging)

    def put_lines(self, name: str, lines: Path) -> DatasetRecord:
        """Check and keep NDJSON as `name`. Raises `BadDataset`."""
        with self._artifacts.staging() as staging:
            write_beir(lines, staging)
            return self._keep(name, staging)

    def put_hub(self, name: str, wanted: HubDataset) -> DatasetRecord:
        """Fetch, check and keep it as `name`. Raises `BadDataset`, `SourceRefused`, `TooLarge`, `Unavailable`."""
        with self._artifacts.staging() as staging:
            source = fetch(wanted, staging, max_bytes=self._max_bytes)
            return self._keep(name, staging, source=source)

    def delete(self, name: str) -> None:
        """Raises `DatasetNotFound`, `DatasetInUse`, `DatasetBuiltIn`."""
        refuse_built_in(name)
        self.release([self._registry.datasets.delete(name)])

    def forget_judgments(self) -> None:
        """Some were taken back: what was written out of them stays only for the jobs that were started with it."""
        with self._changing:
            self._release(self._registry.datasets.forget(JUDGMENTS))

    def release(self, contents: Iterable[str]) -> None:
        """Remove those of these digests that no record names and no job needs any more.

        Only content that the registry knew is ever removed: beside a wrong or lost registry nothing is.
        """
        with self._changing:
            self._release(contents)

    def unknown_passages(self, record: DatasetRecord) -> Unknown | None:
        """Asked of the store as it is now; None for a dataset with its own corpus."""
        if record.counts["passages"] is not None:
            return None
        try:
            named = list(dict.fromkeys(self._judged(record)))
        except FileNotFoundError as error:
            raise Conflict(f"The dataset {record.name!r} was replaced while it was read; repeat the call.") from error
        unknown: list[str] = []
        for start in range(0, len(named), LOOKED_UP_AT_ONCE):
            ids = named[start : start + LOOKED_UP_AT_ONCE]
            there = self._store.content_hashes(ids)
            unknown += [passage_id for passage_id in ids if passage_id not in there]
        return Unknown(count=len(unknown), ids=unknown[:MAX_LISTED])

    def _write_out_of(self, wanted: Sequence[tuple[str, str]]) -> None:
        """`judgments` as they are now, where a split of them is wanted."""
        if splits := [split for name, split in wanted if name == JUDGMENTS]:
            content = self.judged()
            for split in splits:
                content.require_split(split)
            self._write_out(content)

    def _write_out(self, content: Content) -> None:
        """Nothing is written where it lies there already."""
        kept = [record.digest for record in self._registry.datasets.all() if record.name == JUDGMENTS]
        if kept != [content.digest] or not self._artifacts.dataset(content.digest).exists():
            with self._artifacts.staging() as staging:
                content.write(staging)
                self._keep(JUDGMENTS, staging)

    def _keep(self, name: str, staging: Path, **said: str) -> DatasetRecord:
        counts = check(staging) | said
        content = digest(staging)
        with self._artifacts.keeping(staging, content) as keep, self._changing:
            keep()
            before = [record.digest for record in self._registry.datasets.all() if record.name == name]
            made = self._registry.datasets.put(name, content, counts)
            self._release(before)
        return made

    def _release(self, contents: Iterable[str]) -> None:
        # A job can only be made with content that has a record: none can come to need what is removed here.
        for content in set(contents) - self._registry.datasets.digests_needed():
            log.info("the dataset content %s is not needed any more", content)
            self._artifacts.remove_dataset(content)

    def _judged(self, record: DatasetRecord) -> Iterator[str]:
        if record.name == JUDGMENTS:
            yield from self.judged().passage_ids
            return
        for path in splits(self._artifacts.dataset(record.digest)):
            for _, _, passage_id, _ in read_qrels(path):
                yield passage_id


def refuse_built_in(name: str) -> None:
    """Raises `DatasetBuiltIn` for a dataset that nobody uploads or deletes."""
    if name == JUDGMENTS:
        raise DatasetBuiltIn(
            f"The dataset '{JUDGMENTS}' is built in and can be neither uploaded nor deleted: POST /judgments adds to "
            "it, DELETE /judgments/{id} takes from it; upload under another name."
        )


def _wanted(entries: list[Entry]) -> list[Entry]:
    """The files that a dataset has; whatever else was packed is left where it is."""
    wanted = [entry for entry in entries if entry.name in (QUERIES, CORPUS) or QRELS.fullmatch(entry.name)]
    names = {entry.name for entry in wanted}
    if QUERIES not in names or not any(QRELS.fullmatch(name) for name in names):
        raise BadDataset(
            "The archive must hold queries.jsonl and at least one qrels/<split>.tsv (BEIR shape); "
            f"it holds {', '.join(sorted(entry.name for entry in entries)[:10]) or 'nothing'}."
        )
    return wanted
