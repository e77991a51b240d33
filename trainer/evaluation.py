"""One evaluation: encoders measured on datasets over exact vectors, each compared in pairs with the base."""

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadDataset
from app.registry import EvaluationRecord
from trainer.evaluate import EvaluationSet, Measured, Sets, measure
from trainer.halves import clusters
from trainer.metrics import Rows, Scores, drift
from trainer.replay import answers, compare_answers, read_replay
from trainer.statistics import compare_paired, holm
from trainer.training_set import Judged, read_judged, read_matrix
from trainer.workplace import Encoder, Workplace

MAX_LISTED = 100
JUDGED = "judged"
ByDataset = dict[str, Any]


def run_evaluation(job: EvaluationRecord, place: Workplace) -> dict[str, Any]:
    """`{"datasets", "matrix"}` as `app.wire.evaluations.EvaluationResult` has it.

    Raises `Stopped` on cancel, `BadDataset` where no query of any dataset can be measured.
    """
    records = [place.registry.encoders.by_id(encoder_id) for encoder_id in job.encoder_ids]
    place.checkpoints.mkdir(parents=True, exist_ok=True)  # what a killed trainer leaves there is removed with the job
    with tempfile.TemporaryDirectory(dir=place.checkpoints) as scratch:
        place.heartbeat.say(phase="loading")
        base = place.load(records[0], Path(scratch) / "base")
        own: set[str] = set()
        sets = _sets(job, place, base, own)
        described = {name: _described(each, name in own) for name, each in sets.items()}
        sets = {name: each for name, each in sets.items() if each.queries.texts}
        replay = Replayed(job, place) if job.replay is not None else None
        if not sets and replay is None:
            raise BadDataset(
                f"No query of {', '.join(described)} has a relevant passage that is there; judge more of them, or "
                "ingest what the judgments name."
            )
        before = _measure(base, sets, place, 0, len(records) * len(sets))
        matrix = {records[0].key: _cells(before, sets)}
        if replay:
            replay.ask(base)
        for number, record in enumerate(records[1:], start=1):
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                encoder = place.load(record, Path(folder) / "encoder")
                scores = _measure(encoder, sets, place, number * len(sets), len(records) * len(sets))
                if replay:
                    replay.ask(encoder)
            matrix[record.key] = _cells(scores, sets, before)
    return {"datasets": described, "matrix": matrix, "replay": replay.result() if replay else None}


class Replayed:
    """Logged queries asked again with one encoder after the other. Raises `BadDataset` where none is left."""

    def __init__(self, job: EvaluationRecord, place: Workplace) -> None:
        said = job.replay or {}
        self._place = place
        self._sample: int = said["sample"]
        self._against = place.registry.encoders.by_id(said["against_id"]).key
        self._replay = read_replay(place.replay, read_matrix(place.training_set))
        if not self._replay.texts:
            raise BadDataset(
                "No logged search is left that was asked in mode dense and whose filter can be served; replay others."
            )
        judged = self._replay.judged()
        self._sets: Sets = {JUDGED: EvaluationSet(matrix=self._replay.matrix, queries=judged)} if judged.texts else {}
        self._answers: dict[str, list[Rows]] = {}
        self._measured: dict[str, dict[str, Measured]] = {}

    def ask(self, encoder: Encoder) -> None:
        self._place.heartbeat.say(phase=f"{encoder.record.key} on logged queries")
        key, should_stop = encoder.record.key, self._place.heartbeat.should_stop
        self._answers[key] = answers(encoder, self._replay, should_stop)
        self._measured[key] = measure(
            encoder.model, self._sets, query_prompt=encoder.query_prompt, should_stop=should_stop
        )

    def result(self) -> dict[str, Any]:
        """As `app.wire.evaluations.ReplayResult` has it."""
        before = self._measured[self._against]
        told = {
            key: compare_answers(self._replay, self._answers[self._against], found, sample=self._sample)
            | self._judged(self._measured[key], before)
            for key, found in self._answers.items()
            if key != self._against
        }
        counts = {"searches": self._replay.searches, "left_out": self._replay.left_out}
        counts |= {"queries": len(set(self._replay.texts))}
        return {"against": self._against, "encoders": told} | counts | self._judged(before, None)

    def _judged(self, measured: dict[str, Measured], before: dict[str, Measured] | None) -> dict[str, Any]:
        return {"judged": _cells(measured, self._sets, before)[JUDGED]} if self._sets else {}


def _sets(job: EvaluationRecord, place: Workplace, base: Encoder, own: set[str]) -> Sets:
    """Each dataset's queries over its own corpus where it has one (its name is put into `own`), or the stored one."""
    stored = cache(lambda: read_matrix(place.training_set))
    sets = {}
    for dataset in job.datasets:
        name, _, split = dataset.partition(":")
        folder = place.dataset(job.dataset_digests, name)
        matrix = place.own_matrix(name, folder, base)
        if matrix is not None:
            own.add(dataset)
        else:
            matrix = stored()
        sets[dataset] = EvaluationSet(matrix=matrix, queries=read_judged(folder, split, matrix))
        if missing := sets[dataset].queries.missing:
            place.say(job, f"{dataset}: {len(missing)} judgments name a passage that is not there")
    return sets


def _measure(encoder: Encoder, sets: Sets, place: Workplace, done: int, steps: int) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for number, (name, each) in enumerate(sets.items(), start=done):
        place.heartbeat.say(phase=f"{encoder.record.key} on {name}", step=number, steps=steps)
        found |= measure(
            encoder.model,
            {name: each},
            query_prompt=encoder.query_prompt,
            should_stop=place.heartbeat.should_stop,
        )
    return found


def _cells(measured: Mapping[str, Measured], sets: Sets, base: Mapping[str, Measured] | None = None) -> ByDataset:
    """The cell of every dataset, compared with `base` where it is given; Holm over the datasets."""
    cells = {name: _cell(measured[name], each.queries, base[name] if base else None) for name, each in sets.items()}
    if base:
        for name, p in holm({name: cell["difference"]["p"] for name, cell in cells.items()}).items():
            cells[name]["difference"]["p_holm"] = p
            cells[name]["drift"] = drift(base[name].vectors, measured[name].vectors)
    return cells


def _cell(measured: Measured, queries: Judged, base: Measured | None) -> dict[str, Any]:
    langs, cluster_of = np.array(queries.langs), clusters(queries)
    of_language = {lang: np.flatnonzero(langs == lang) for lang in sorted(set(queries.langs) - {""})}
    before = base.scores if base else None
    languages = {lang: _figures(measured.scores, before, cluster_of, rows) for lang, rows in of_language.items()}
    whole = _figures(measured.scores, before, cluster_of, np.arange(len(langs)))
    return whole | {"languages": languages}


def _figures(
    scores: Scores, before: Scores | None, cluster_of: NDArray[np.int64], rows: NDArray[np.int64]
) -> dict[str, Any]:
    """Means over the queries with these numbers, (rows,), and the difference of MRR@10 to `before`."""
    figures: dict[str, Any] = {"queries": len(rows)}
    figures |= {field.name: float(getattr(scores, field.name)[rows].mean()) for field in fields(scores)}
    if before is not None:
        found = compare_paired(before.mrr[rows], scores.mrr[rows], cluster_of[rows])
        figures["difference"] = {"change": found.mean, "low": found.low, "high": found.high, "p": found.p}
    return figures


def _described(each: EvaluationSet, own: bool) -> dict[str, Any]:
    queries = each.queries
    missing = {
        "judgments": len(queries.missing),
        "ids": list(dict.fromkeys(passage_id for _, passage_id in queries.missing))[:MAX_LISTED],
        "queries": len({query_id for query_id, _ in queries.missing} - set(queries.ids)),
    }
    return {"queries": len(queries.ids), "passages": len(each.matrix.ids), "own_corpus": own, "missing": missing}
