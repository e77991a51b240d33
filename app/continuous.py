"""Keeps a standing order to tune: looks again and again at what is due, and takes the step.

Every step is written in the transaction that does it, after the step that was looked at: whoever comes second, another
service or one that was killed and started again, finds it taken. Of several services the one that leads looks.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from app.again import Again
from app.datasets import DatasetStore
from app.encoders.switching import Switcher
from app.errors import (
    BadInput,
    Conflict,
    DatasetNotFound,
    JobFinished,
    JobNotResumable,
    NotFound,
    StaleGeneration,
)
from app.experiments import alpha_of, broken_rule, counted, finding
from app.judgments import NAME as JUDGMENTS
from app.judgments import Content
from app.registry import (
    Activation,
    Actor,
    JobRecord,
    NewStep,
    Registry,
    Rules,
    Standing,
    Step,
    StepKind,
    acting,
)
from app.registry.activations import AlsoOfActivation
from app.registry.encoders import parse_key
from app.rounds import Next, after_canary, after_tuning, replaced, to_begin, to_wait
from app.tuning import queue_tuning
from app.webhook import Webhook
from app.wire.continuous import ContinuousTuning
from app.wire.findings import of_line
from app.wire.tuning_jobs import TuningJobCreate

log = logging.getLogger("adiabat.continuous")

LOOK_S = 5.0
PAUSE, LONGEST_S = 50, 600.0  # it waits so many times as long as a look took: counting what is judged may be slow
OFF = Next(said="There is no standing order; PUT /continuous-tuning sets one.")


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Everything of one look."""

    now: float
    standing: Standing
    order: ContinuousTuning | None
    active: Activation
    judged: Content | None = None  # asked where no round is under way
    candidate: str | None = None  # name@version that the round under way made
    next: Next = OFF

    @property
    def new_judgments(self) -> int | None:
        return self.judged.new_since(self.standing.judged_until) if self.judged else None


class ContinuousTuner:
    """`wake` hears that a job was queued; `clock` tells seconds since 1970, None: by the registry's database."""

    def __init__(
        self,
        registry: Registry,
        switcher: Switcher,
        datasets: DatasetStore,
        webhook: Webhook,
        *,
        wake: Callable[[], None],
        leads: Callable[[], bool],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._registry = registry
        self._switcher = switcher
        self._datasets = datasets
        self._webhook = webhook
        self._wake = wake
        self._leads = leads
        self._clock = clock or registry.database.now
        self._took_s = 0.0
        again = Again("continuous-tuner", self._pause_s, self._look_where_it_leads, log=log)
        self.start, self.stop = again.start, again.stop

    def _pause_s(self) -> float:
        return max(LOOK_S, min(PAUSE * self._took_s, LONGEST_S))

    def _look_where_it_leads(self) -> None:
        began = time.monotonic()
        try:
            if self._leads():
                self.look()
        finally:
            self._took_s = time.monotonic() - began

    def view(self, *, exact: bool = True) -> View:
        """How it stands, and what `look` would do. Changes nothing. Raises `Conflict` for an order of another version.

        Not `exact`: what is judged is counted only where enough of it may be new. That takes seconds of 100,000 pairs.
        """
        standing = self._registry.continuous.standing()
        order = _order(standing.order.terms or {}) if standing.order else None
        active = self._registry.activations.newest(1)[0]
        seen = View(now=self._clock(), standing=standing, order=order, active=active)
        if standing.round is not None:
            return self._of_round(seen, standing.round)
        if order is None:
            return seen
        if not exact and (waits := to_wait(order, standing, self._new_at_most(standing), seen.now)) is not None:
            return replace(seen, next=waits)
        judged: Content | None = None
        with suppress(DatasetNotFound):  # nothing is judged yet
            judged = self._datasets.judged()
        return replace(seen, judged=judged, next=to_begin(order, standing, judged, active, seen.now))

    def _new_at_most(self, standing: Standing) -> int:
        """No pair is new without a judgment or a click of its own."""
        since = standing.judged_until
        return self._registry.judgments.count_new(since) + self._registry.queries.count_clicks(since)

    def _of_round(self, seen: View, newest: Step) -> View:
        seen = replace(seen, candidate=newest.encoder)
        if (gone := replaced(seen.standing)) is not None or seen.order is None:
            return replace(seen, next=gone or OFF)
        if newest.kind is StepKind.CANARY:
            record = self._registry.experiments.find(newest.generation or 0)
            tally = counted(self._registry, record)
            found, alpha = finding(record, tally), alpha_of(record)
            broken = broken_rule(self._registry, record, tally, found)
            return replace(
                seen, next=after_canary(seen.order, newest, tally, found, alpha, broken, seen.active, seen.now)
            )
        job = self._registry.jobs.get(newest.job_id or "")
        made = self._registry.encoders.by_id(job.encoder_id) if job.encoder_id is not None else None
        return replace(
            seen,
            candidate=made.key if made else None,
            next=after_tuning(seen.order, seen.standing, job, made, seen.active, seen.now),
        )

    def look(self) -> None:
        """Take the step that is due, if one is. Raises what queueing and switching raise where a part is away."""
        seen = self.view(exact=False)
        if seen.next.kind is None:
            return
        setting = seen.standing.setting
        by = {"by": "continuous-tuning", "set_by": setting.set_by if setting else None}
        try:
            with acting(Actor(detail=by)):
                taken = self._take(seen, seen.next.kind)
        except (StaleGeneration, JobNotResumable) as error:  # somebody was quicker: the next look sees what they did
            log.info("Continuous tuning looks again: %s", error.detail)
            return
        log.info("Continuous tuning, %s: %s", taken.kind, taken.said)
        told = {"job": taken.job_id, "encoder": taken.encoder, "generation": taken.generation, "said": taken.said}
        self._webhook.send(f"continuous-tuning.{taken.kind}", **told)

    def _take(self, seen: View, kind: StepKind) -> NewStep:
        """Raises `StaleGeneration` or `JobNotResumable` where another one was taken meanwhile."""
        under_way = seen.standing.round
        step = NewStep(
            kind=kind,
            at=seen.now,
            said=seen.next.said,
            job_id=under_way.job_id if under_way else None,
            encoder=seen.candidate,
            generation=under_way.generation if under_way else None,
            judged_until=self._used(seen),
        )
        match kind:
            case StepKind.STARTED:
                return self._begin(seen, step)
            case StepKind.RESUMED:
                self._registry.jobs.resume(step.job_id or "")
                self._wake()
                return self._note(seen, step)
            case StepKind.CANARY | StepKind.PROMOTED:
                return self._switch(seen, step)
            case StepKind.DISCARDED:
                return self._discard(seen, step)
            case _:
                return self._note(seen, step)

    @staticmethod
    def _used(seen: View) -> float | None:
        """How far the judgments are used by this step: what a round counted is new again where its order went."""
        if seen.next.gives_back:
            return seen.standing.before or 0.0
        return seen.judged.first_judged_at[-1] if seen.judged else None

    def _note(self, seen: View, step: NewStep) -> NewStep:
        self._registry.continuous.take(seen.standing.sequence, step)
        return step

    def _begin(self, seen: View, step: NewStep) -> NewStep:
        order = seen.order
        assert order is not None  # or nothing would be due
        step = replace(step, generation=seen.active.generation)
        wanted = TuningJobCreate(
            name=order.name, dataset=JUDGMENTS, recipe=order.recipe, guards=order.guards, gate=order.gate
        )

        def also(connection: Connection, job: JobRecord) -> None:
            self._registry.continuous.append(connection, seen.standing.sequence, replace(step, job_id=job.id))

        try:
            job = queue_tuning(wanted, self._registry, self._datasets, also)
        except (BadInput, NotFound) as error:  # a guard is gone: the next round may find it
            return self._note(
                seen, replace(step, kind=StepKind.DISCARDED, said=f"No tuning could be begun: {error.detail}")
            )
        self._wake()
        return replace(step, job_id=job.id)

    def _switch(self, seen: View, step: NewStep) -> NewStep:
        """To the canary, or for good; unless somebody else did it already, and the step only tells it."""
        if seen.standing.round is None or seen.active.generation != seen.standing.round.generation:
            return self._note(seen, replace(step, generation=seen.active.generation))
        name, version = parse_key(step.encoder or "")
        expected, note, also = seen.active.generation, f"Continuous tuning: {step.said}", self._also(seen, step)
        canary = seen.order.canary if seen.order and step.kind is StepKind.CANARY else None
        try:
            if canary is None:
                switched = self._switcher.activate(
                    name, version, expected=expected, reason="continuous", note=note, also=also
                )
            else:
                switched = self._switcher.split(
                    name,
                    version,
                    percent=canary.percent,
                    sticky_by=canary.sticky_by,
                    interleave=canary.interleave,
                    rules=Rules(**canary.rules.model_dump()) if canary.rules else None,
                    expected=expected,
                    note=note,
                    also=also,
                )
        except (Conflict, NotFound) as error:  # it is broken or gone
            return self._discard(seen, replace(step, kind=StepKind.DISCARDED, said=error.detail))
        return replace(step, generation=switched.active.generation)

    def _discard(self, seen: View, step: NewStep) -> NewStep:
        """What the round has begun ends with it: its canary, or its tuning."""
        under_way = seen.standing.round
        if under_way is not None and under_way.kind is StepKind.CANARY:
            if seen.active.generation == under_way.generation:
                note, also = f"Continuous tuning: {step.said}", self._also(seen, step)
                switched = self._switcher.end_canary(seen.active.generation, note, also)
                return replace(step, generation=switched.active.generation)
        elif step.job_id is not None:
            with suppress(JobFinished):
                self._registry.jobs.cancel(step.job_id)
        return self._note(seen, step)

    def _also(self, seen: View, step: NewStep) -> AlsoOfActivation:
        def append(connection: Connection, made: Activation) -> None:
            told = replace(step, generation=made.generation)
            self._registry.continuous.append(connection, seen.standing.sequence, told)

        return append


def _order(terms: dict[str, Any]) -> ContinuousTuning:
    try:
        return ContinuousTuning.model_validate(terms)
    except ValidationError as error:
        raise Conflict(
            f"The standing order that is stored is not one that this version takes ({of_line(error)}), so nothing is "
            "begun by it; PUT /continuous-tuning sets it anew, DELETE /continuous-tuning takes it back."
        ) from error
