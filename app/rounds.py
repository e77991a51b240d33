"""What a standing order to tune does next: pure functions of what the registry says, and why, in words.

A round tunes on the judgments, lets the gate speak, tries what passed as a canary, and promotes or discards it. It
lives as long as its order, and as long as nobody else switches: what a person does in between ends it.
"""

from dataclasses import dataclass

from app.errors import BadDataset
from app.judgments import DEV, Content
from app.registry import Activation, EncoderRecord, EncoderState, JobRecord, JobStatus, Standing, Step, StepKind, Tally
from app.verdicts import MIN_REQUESTS, Finding
from app.wire.continuous import ContinuousCanary, ContinuousTuning

HOUR_S = 3600.0
RESUME_S = 60.0  # before an interrupted tuning is taken up again; twice as long each time
MAX_RESUMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Next:
    """The step that is to be taken now; `kind` None: none yet, and `said` is what it waits for."""

    kind: StepKind | None = None
    said: str
    gives_back: bool = False  # the judgments that the round counted are new to the next one


def in_words(order: ContinuousTuning) -> str:
    when = [f"every {order.every_hours:g} hours"] if order.every_hours is not None else []
    when += [f"at {order.min_new_judgments:,} new judgments"] if order.min_new_judgments is not None else []
    begun = " or ".join(when)
    guards = f" with the guards {', '.join(order.guards)}" if order.guards else ""
    tried, canary = "", order.canary
    if canary is not None:
        tried = f"is tried as a canary of {canary.percent:g}% for {canary.max_hours:g} hours at most, and then "
    ended = "is promoted" if order.on_success == "promote" else "waits for a person"
    return f"{begun[0].upper()}{begun[1:]} {order.name!r} is tuned{guards}. What passes its gate {tried}{ended}."


def to_begin(
    order: ContinuousTuning, standing: Standing, judged: Content | None, active: Activation, now: float
) -> Next:
    """Where no round is under way; `judged` None: nothing is."""
    if judged is None:
        return Next(said="Nothing is judged yet: POST /judgments, or POST /feedback, adds to the dataset 'judgments'.")
    due, waits = _due(order, standing, judged.new_since(standing.judged_until), now)
    if not due:
        return Next(said=waits)
    try:
        judged.require_pairs()
        judged.require_split(DEV)
    except BadDataset as error:
        return Next(said=error.detail)
    if active.canary is not None:
        return Next(
            said=f"A round is due ({due}), and waits: generation {active.generation} tries {active.canary.encoder}, "
            "and there is one experiment at a time. Activate an encoder, or roll back, to end it."
        )
    said = f"{due}; {judged.pairs:,} pairs to tune on"
    if order.dry_run:
        return Next(kind=StepKind.DRY_RUN, said=f"Would begin: {said}. {in_words(order)}")
    return Next(kind=StepKind.STARTED, said=f"{said[0].upper()}{said[1:]}.")


def to_wait(order: ContinuousTuning, standing: Standing, new_at_most: int, now: float) -> Next | None:
    """Where no round is due though all that may be new were."""
    due, waits = _due(order, standing, new_at_most, now)
    return None if due else Next(said=waits)


def _due(order: ContinuousTuning, standing: Standing, new: int, now: float) -> tuple[str, str]:
    """Why a round is due, or what it waits for; the other is empty. `new`: pairs since the last one."""
    began = standing.rehearsed or standing.began or standing.setting
    assert began is not None  # there is an order
    wanted = []
    if (least := order.min_new_judgments) is not None:
        if new >= least:
            return f"{new:,} new judgments, and {least:,} were asked for", ""
        wanted.append(f"{least - new:,} more new judgments ({new:,} of {least:,})")
    if order.every_hours is not None:
        left_s = began.at + order.every_hours * HOUR_S - now
        if left_s <= 0 and new:
            return f"{order.every_hours:g} hours are over, with {new:,} new judgments", ""
        wanted.append(f"{_time(left_s)} to pass" if left_s > 0 else "a new judgment")
    return "", f"It waits for {', or for '.join(wanted)}."


def replaced(standing: Standing) -> Next | None:
    """Where the order of the round under way stands no more."""
    began, setting = standing.began, standing.setting
    if began is None or setting is None or setting.sequence < began.sequence:
        return None
    gone = "Another order was set" if setting.kind is StepKind.SET else "The order was taken back"
    return Next(kind=StepKind.DISCARDED, said=f"{gone} while the round was under way.", gives_back=True)


def after_tuning(
    order: ContinuousTuning,
    standing: Standing,
    job: JobRecord,
    candidate: EncoderRecord | None,
    active: Activation,
    now: float,
) -> Next:
    """`candidate`: what the job made."""
    if standing.round is not None and active.generation != standing.round.generation:
        return Next(kind=StepKind.DISCARDED, said=f"While it was tuned, {_switched(active)}.")
    if job.status is JobStatus.INTERRUPTED:
        return _interrupted(standing, job, now)
    if not job.finished:
        return Next(said=f"Tuning job {job.id} is {job.status.shown}.")
    if job.status is not JobStatus.SUCCEEDED or candidate is None:
        why = job.reason or "no reason is known"
        return Next(kind=StepKind.DISCARDED, said=f"The tuning job ended as {job.status}: {why}")
    if candidate.state is not EncoderState.READY:
        return Next(kind=StepKind.DISCARDED, said=f"{candidate.key} is {candidate.state} and cannot become active.")
    if candidate.id == active.encoder_id:
        return Next(kind=StepKind.DISCARDED, said=f"The tuning made {candidate.key}, which is active already.")
    if order.canary is not None:
        return Next(kind=StepKind.CANARY, said=f"{candidate.key} passed its gate.")
    return _succeeded(order, f"{candidate.key} passed its gate, and no canary is asked for.")


def _interrupted(standing: Standing, job: JobRecord, now: float) -> Next:
    if standing.resumed >= MAX_RESUMED:
        said = f"The tuning was interrupted {MAX_RESUMED + 1} times, at last: {job.reason}."
        return Next(kind=StepKind.DISCARDED, said=said)
    left_s = (job.finished_at or now) + RESUME_S * 2**standing.resumed - now
    if left_s > 0:
        return Next(said=f"Tuning job {job.id} was interrupted and is taken up again in {_time(left_s)}.")
    return Next(kind=StepKind.RESUMED, said=f"The tuning was interrupted: {job.reason}.")


def after_canary(
    order: ContinuousTuning,
    trial: Step,
    tally: Tally,
    found: Finding,
    alpha: float,
    broken: str | None,
    active: Activation,
    now: float,
) -> Next:
    """`trial` is the step that began it; `found` what its experiment says at the error rate `alpha`; `broken` the rule
    that ends the canary at this moment, in words."""
    canary = order.canary
    assert canary is not None  # a round has one order from its beginning to its end
    if active.generation != trial.generation:
        return _ended(trial, active)
    if broken is not None:
        return Next(kind=StepKind.DISCARDED, said=broken)
    if found.verdict == "worse":
        return Next(kind=StepKind.DISCARDED, said=found.said)
    if _shown(canary, tally, found, alpha):
        return _succeeded(order, found.said)
    left_s = trial.at + canary.max_hours * HOUR_S - now
    if left_s <= 0:
        said = f"{canary.max_hours:g} hours are over without a decision. {found.said}"
        return Next(kind=StepKind.DISCARDED, said=said)
    return Next(said=f"{trial.encoder} is tried for {_time(left_s)} more at most. {found.said}")


def _shown(canary: ContinuousCanary, tally: Tally, found: Finding, alpha: float) -> bool:
    """That it loses no more than is allowed, after so many requests that its rules could have spoken."""
    least = canary.rules.min_requests if canary.rules else MIN_REQUESTS
    enough = min(tally.active.requests, tally.canary.requests) >= least
    return enough and found.effect is not None and found.effect.interval(alpha)[0] > -canary.max_loss


def _ended(trial: Step, active: Activation) -> Next:
    if active.reason == "rule":
        return Next(kind=StepKind.DISCARDED, said=f"Its canary was ended. {active.note}")
    if active.canary is None and active.encoder == trial.encoder:
        return Next(kind=StepKind.PROMOTED, said=f"Somebody activated it: generation {active.generation}.")
    return Next(kind=StepKind.DISCARDED, said=f"While it was tried, {_switched(active)}.")


def _succeeded(order: ContinuousTuning, why: str) -> Next:
    if order.on_success == "promote":
        return Next(kind=StepKind.PROMOTED, said=why)
    return Next(kind=StepKind.HELD, said=f"{why} It is a person's turn to activate it, or not to.")


def _switched(active: Activation) -> str:
    beside = f", with {active.canary.encoder} as canary" if active.canary else ""
    return f"generation {active.generation} came in between ({active.reason}: {active.encoder}{beside})"


def _time(seconds: float) -> str:
    hours = seconds / HOUR_S
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(seconds / 60, 1):.0f} minutes"
