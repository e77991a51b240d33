"""Looks at every experiment that goes on, again and again: keeps what was counted, and the first look that decided.

Of several services the one that leads looks. Nothing here is in the way of a search.
"""

import logging
import threading
from collections.abc import Callable

from app.errors import AdiabatError
from app.registry import Decided, ExperimentRecord, Registry, Tally
from app.verdicts import ALPHA, Finding, find

log = logging.getLogger("adiabat.experiments")

LOOK_S = 5.0
SETTLE_S = 3600.0  # after an experiment has ended, clicks on its answers count for so long


class ExperimentKeeper:
    def __init__(self, registry: Registry, leads: Callable[[], bool]) -> None:
        self._registry = registry
        self._leads = leads
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="experiment-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                if self._leads():
                    self.look()
            except AdiabatError as error:  # the registry is away: it looks again
                log.warning("Experiments wait: %s", error.detail)
            except Exception:  # a bug must not end the only thread that looks
                log.exception("An experiment could not be looked at")

    def look(self) -> None:
        for record in self._registry.experiments.unsettled():
            self._look_at(record)

    def _look_at(self, record: ExperimentRecord) -> None:
        tally = counted(self._registry, record)
        found, ended = finding(record, tally), record.ended
        decided = record.decided
        if decided is None and found.verdict in ("better", "worse"):
            at = self._registry.database.now()
            decided = Decided(verdict=found.verdict, requests=tally.requests, at=at, alpha=ALPHA)
            log.info("Experiment %d: %s", record.began.generation, found.said)
        settled = ended is not None and self._registry.database.now() - ended.at > SETTLE_S
        if settled or (tally, decided) != (record.tally, record.decided):
            self._registry.experiments.keep(record.began.generation, tally, decided, settled=settled)


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
    return find(tally, active=record.began.encoder, canary=canary.encoder if canary else "")
