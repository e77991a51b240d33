"""Looks at every experiment that goes on, again and again: keeps what was counted, ends a canary that breaks a rule.

Every service adds what it saw; of several the one that leads looks. Nothing here is in the way of a search.
"""

import logging
from collections.abc import Callable

from app.again import Again
from app.encoders.switching import Switcher
from app.errors import AdiabatError, StaleGeneration
from app.guarding import Seen, broken
from app.registry import Decided, ExperimentRecord, Registry, Tally
from app.verdicts import ALPHA, Finding, find
from app.webhook import Webhook

log = logging.getLogger("adiabat.experiments")

LOOK_S = 5.0
ENDED_EVERY = 12  # looks: of one that has ended only late clicks come
SETTLE_S = 3600.0  # after an experiment has ended, clicks on its answers count for so long


class ExperimentKeeper:
    def __init__(
        self, registry: Registry, switcher: Switcher, seen: Seen, webhook: Webhook, leads: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._switcher = switcher
        self._seen = seen
        self._webhook = webhook
        self._leads = leads
        self._looks = 0
        again = Again("experiment-keeper", lambda: LOOK_S, self.add_seen, self._look_where_it_leads, log=log)
        self.start, self.stop = again.start, again.stop

    def _look_where_it_leads(self) -> None:
        if self._leads():
            self.look()

    def add_seen(self) -> None:
        """What this service saw is lost where the registry does not take it: the rules need no more than a sample."""
        if seen := self._seen.take():
            self._registry.signals.add(seen)

    def look(self) -> None:
        of_all = self._looks % ENDED_EVERY == 0
        self._looks += 1
        for record in self._registry.experiments.unsettled():
            if of_all or record.ended is None:
                try:
                    self._look_at(record)
                except AdiabatError as error:  # the others are looked at all the same
                    log.warning("Experiment %d waits: %s", record.began.generation, error.detail)

    def _look_at(self, record: ExperimentRecord) -> None:
        tally = counted(self._registry, record)
        found, ended = finding(record, tally), record.ended
        decided = record.decided
        if decided is None and found.verdict in ("better", "worse"):
            at = self._registry.database.now()
            decided = Decided(verdict=found.verdict, requests=tally.requests, at=at, alpha=alpha_of(record))
        settled = ended is not None and self._registry.database.now() - ended.at > SETTLE_S
        if settled or (tally, decided) != (record.tally, record.decided):
            self._registry.experiments.keep(record.began.generation, tally, decided, settled=settled)
        if decided is not None and record.decided is None:  # once it is kept: it is told once
            self._tell("experiment.decided", record, decided.verdict, found.said)
        if settled:
            self._registry.signals.forget(record.began.generation)
        if ended is None:
            self._hold_to_rules(record, tally, found)

    def _hold_to_rules(self, record: ExperimentRecord, tally: Tally, found: Finding) -> None:
        why = broken_rule(self._registry, record, tally, found)
        if why is None:
            return
        try:
            self._switcher.end_canary(record.began.generation, why)
        except StaleGeneration:  # somebody was quicker
            return
        self._tell("canary.rolled-back", record, "worse", why)

    def _tell(self, kind: str, record: ExperimentRecord, verdict: str, said: str) -> None:
        canary, generation = record.began.canary, record.began.generation
        log.warning("Experiment %d: %s", generation, said)
        self._webhook.send(
            kind,
            experiment=generation,
            active=record.began.encoder,
            canary=canary.encoder if canary else None,
            verdict=verdict,
            said=said,
        )


def counted(registry: Registry, record: ExperimentRecord) -> Tally:
    """What the query log holds, or what was kept where searches have left it since."""
    if record.settled:
        return record.tally
    canary = record.began.canary
    interleaved = canary is not None and canary.interleave
    now = registry.experiments.count(record.began.generation, interleaved=interleaved)
    return now if now.requests >= record.tally.requests else record.tally


def finding(record: ExperimentRecord, tally: Tally) -> Finding:
    canary = record.began.canary
    encoder = canary.encoder if canary else ""
    return find(tally, active=record.began.encoder, canary=encoder, alpha=alpha_of(record))


def broken_rule(registry: Registry, record: ExperimentRecord, tally: Tally, found: Finding) -> str | None:
    """The rule that its canary breaks at this moment, in words."""
    canary, generation = record.began.canary, record.began.generation
    if canary is None or canary.rules is None:
        return None
    return broken(canary.rules, tally, found, registry.signals.of(generation, canary.rules.window_s))


def alpha_of(record: ExperimentRecord) -> float:
    canary = record.began.canary
    return canary.rules.alpha if canary and canary.rules else ALPHA
