"""What a standing order does next, from figures alone."""

from dataclasses import replace
from typing import Any

import pytest

from app.judgments import Content, to_content
from app.registry import (
    Activation,
    Admission,
    Canary,
    EncoderRecord,
    EncoderState,
    JobRecord,
    JobStatus,
    Judgment,
    Standing,
    Step,
    StepKind,
    Tally,
)
from app.registry.experiments import Arm
from app.registry.judgments import id_of
from app.rounds import HOUR_S, Next, after_canary, after_tuning, in_words, replaced, to_begin
from app.verdicts import find
from app.wire.continuous import ContinuousTuning

NOW = 1e9
CANARY = {"percent": 100, "interleave": True, "rules": {"min_requests": 20}}


def order(**fields: Any) -> ContinuousTuning:
    return ContinuousTuning.model_validate({"name": "learned", "min_new_judgments": 10} | fields)


def judged(count: int) -> Content:
    """Pair n at the time n."""
    return to_content(
        [
            Judgment(
                sequence=n,
                id=id_of(f"q{n}", "p"),
                query_id=id_of(f"q{n}"),
                query=f"q{n}",
                passage_id="p",
                relevance=1,
                lang=None,
                first_judged_at=float(n),
                judged_at=NOW,
            )
            for n in range(1, count + 1)
        ]
    )


def step(sequence: int, kind: StepKind, **fields: Any) -> Step:
    return Step(**{"sequence": sequence, "kind": kind, "at": NOW, "said": "", "generation": 4} | fields)


def active(generation: int = 4, **fields: Any) -> Activation:
    plain = Activation(
        generation=generation,
        encoder_id=1,
        encoder="base@1",
        digest="d",
        reason="activate",
        forced=False,
        at=NOW,
        canary=None,
    )
    return replace(plain, **fields)


def trying(encoder: str) -> Canary:
    return Canary(encoder_id=7, percent=10, sticky_by="key", encoder=encoder)


def begun(of: ContinuousTuning, count: int | None, *, since: float | None = None, later_s: float = 0) -> Next:
    """`count` pairs are judged, and the last round had seen those up to `since`."""
    setting = step(1, StepKind.SET)
    began = step(2, StepKind.DISCARDED, judged_until=since) if since is not None else None
    standing = Standing(sequence=2, setting=setting, began=began)
    return to_begin(of, standing, judged(count) if count else None, active(), NOW + later_s)


def test_a_round_begins_at_enough_new_judgments() -> None:
    assert "Nothing is judged yet" in begun(order(), None).said
    assert begun(order(), 50, since=41.0).said == "It waits for 1 more new judgments (9 of 10)."
    assert begun(order(), 50, since=41.0).kind is None
    due = begun(order(), 50, since=40.0)
    assert (due.kind, due.said) == (
        StepKind.STARTED,
        "10 new judgments, and 10 were asked for; 40 pairs to tune on.",
    )
    assert begun(order(), 50).kind is StepKind.STARTED  # before the first round all are new


def test_a_round_begins_when_its_time_has_come_and_something_is_new() -> None:
    weekly = order(min_new_judgments=None, every_hours=168)
    assert begun(weekly, 50).said == "It waits for 168.0 hours to pass."
    assert begun(weekly, 50, since=50.0, later_s=168 * HOUR_S).said == "It waits for a new judgment."
    assert begun(weekly, 50, since=49.0, later_s=168 * HOUR_S - 90).said == "It waits for 2 minutes to pass."
    assert begun(weekly, 50, since=49.0, later_s=168 * HOUR_S).kind is StepKind.STARTED
    either = order(every_hours=1)
    assert (
        begun(either, 50, since=45.0).said == "It waits for 5 more new judgments (5 of 10), or for 1.0 hours to pass."
    )
    assert begun(either, 50, since=45.0, later_s=HOUR_S).kind is StepKind.STARTED
    assert begun(either, 50, since=40.0).kind is StepKind.STARTED


def test_a_round_waits_for_what_a_tuning_needs_and_for_other_experiments() -> None:
    few = begun(order(), 20)
    assert (few.kind, "has 16 of the 32 pairs" in few.said) == (None, True)
    standing = Standing(sequence=1, setting=step(1, StepKind.SET))
    busy = to_begin(order(), standing, judged(50), active(9, canary=trying("wasps@2")), NOW)
    assert busy.kind is None
    assert "generation 9 tries wasps@2" in busy.said


def test_a_dry_run_tells_what_it_would_do() -> None:
    found = begun(order(dry_run=True, guards=["a:de"], canary=CANARY, on_success="promote"), 50)
    assert found.kind is StepKind.DRY_RUN
    assert found.said.startswith("Would begin: 50 new judgments")
    assert found.said.endswith(
        "At 10 new judgments 'learned' is tuned with the guards a:de. What passes its gate is tried as a canary of "
        "100% for 336 hours at most, and then is promoted."
    )
    assert in_words(order(every_hours=24)) == (
        "Every 24 hours or at 10 new judgments 'learned' is tuned. What passes its gate waits for a person."
    )


def test_a_dry_run_is_told_once_and_uses_no_judgments() -> None:
    rehearsed = step(3, StepKind.DRY_RUN, judged_until=45.0)
    began = step(1, StepKind.DISCARDED, judged_until=35.0)
    standing = Standing(sequence=3, setting=step(2, StepKind.SET), began=began, rehearsed=rehearsed)
    again = to_begin(order(dry_run=True), standing, judged(50), active(), NOW)
    assert (again.kind, again.said) == (None, "It waits for 5 more new judgments (5 of 10).")
    for_real = replace(standing, rehearsed=None)
    assert to_begin(order(), for_real, judged(50), active(), NOW).said.startswith("15 new judgments")


def test_a_round_ends_with_its_order() -> None:
    began = step(2, StepKind.STARTED, judged_until=1.0)
    for kind, said in ((StepKind.SET, "Another order was set"), (StepKind.REMOVED, "The order was taken back")):
        found = replaced(Standing(sequence=3, setting=step(3, kind), round=began, began=began))
        assert found is not None
        assert (found.kind, said in found.said, found.gives_back) == (StepKind.DISCARDED, True, True)
    assert replaced(Standing(sequence=2, setting=step(1, StepKind.SET), round=began, began=began)) is None


def job(status: JobStatus, **fields: Any) -> JobRecord:
    empty: dict[str, Any] = {key: {} for key in ("dataset_digests", "progress", "recipe", "gate")}
    absent = dict.fromkeys(("result", "worker", "started_at", "heartbeat_at", "activation", "encoder_id"))
    plain: dict[str, Any] = {"id": "j", "attempts": 1, "created_at": 0, "finished_at": NOW, "reason": "so it is"}
    plain |= {"name": "learned", "parent_id": 1, "dataset": "judgments", "guards": [], "activate": "never"}
    return JobRecord(**empty | absent | plain | {"status": status} | fields)


def candidate(**fields: Any) -> EncoderRecord:
    plain = EncoderRecord(
        id=7,
        name="learned",
        version=3,
        digest="e",
        base_digest="d",
        parent_digest="d",
        admission=Admission.VERIFIED,
        state=EncoderState.READY,
        size_bytes=1,
        description="",
        labels={},
        metrics={},
        checks=[],
        created_at=NOW,
    )
    return replace(plain, **fields)


def tuned(
    status: JobStatus = JobStatus.SUCCEEDED,
    made: EncoderRecord | None = None,
    now: Activation | None = None,
    *,
    resumed: int = 0,
    later_s: float = 0,
    **fields: Any,
) -> Next:
    newest = step(2, StepKind.STARTED, job_id="j")
    standing = Standing(sequence=2, setting=step(1, StepKind.SET), round=newest, began=newest, resumed=resumed)
    return after_tuning(order(**fields), standing, job(status), made or candidate(), now or active(), NOW + later_s)


def test_what_passed_its_gate_is_tried_or_promoted_or_left_to_a_person() -> None:
    assert tuned(canary=CANARY).kind is StepKind.CANARY
    assert tuned(on_success="promote").kind is StepKind.PROMOTED
    held = tuned()
    assert held.kind is StepKind.HELD
    assert held.said.endswith("It is a person's turn to activate it, or not to.")
    for going_on in (JobStatus.QUEUED, JobStatus.PREPARED, JobStatus.RUNNING, JobStatus.CANCELLING):
        assert tuned(going_on).kind is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (tuned(JobStatus.REJECTED, on_success="promote"), "The tuning job ended as rejected: so it is"),
        (tuned(JobStatus.FAILED), "ended as failed"),
        (tuned(JobStatus.CANCELLED), "ended as cancelled"),
        (tuned(made=candidate(state=EncoderState.REJECTED)), "learned@3 is rejected and cannot"),
        (tuned(made=candidate(state=EncoderState.DELETED)), "is deleted"),
        (tuned(made=candidate(id=1)), "is active already"),
        (tuned(now=active(5)), "generation 5 came in between (activate: base@1)"),
        (tuned(JobStatus.RUNNING, now=active(5, reason="rollback")), "generation 5 came in between (rollback: base@1)"),
        (
            tuned(now=active(5, reason="canary", canary=trying("wasps@2"))),
            "came in between (canary: base@1, with wasps@2 as canary)",
        ),
    ],
)
def test_what_must_not_become_active_is_discarded(found: Next, said: str) -> None:
    assert found.kind is StepKind.DISCARDED
    assert said in found.said


def test_an_interrupted_tuning_is_taken_up_again_less_and_less_often() -> None:
    for resumed, wait_s in enumerate((60, 120, 240, 480, 960)):
        assert tuned(JobStatus.INTERRUPTED, resumed=resumed, later_s=wait_s - 1).kind is None
        assert tuned(JobStatus.INTERRUPTED, resumed=resumed, later_s=wait_s).kind is StepKind.RESUMED
    given_up = tuned(JobStatus.INTERRUPTED, resumed=5)
    assert given_up.kind is StepKind.DISCARDED
    assert "interrupted 6 times, at last: so it is" in given_up.said


def tried(
    wins: int,
    losses: int,
    now: Activation | None = None,
    *,
    later_s: float = 0,
    asked: int = 0,
    broken: str | None = None,
    **fields: Any,
) -> Next:
    requests = asked or wins + losses
    tally = Tally(
        active=Arm(requests=requests, users=requests, wins=losses),
        canary=Arm(requests=requests, users=requests, wins=wins),
        interleaved=True,
        squares=wins + losses,
    )
    trial = step(3, StepKind.CANARY, encoder="learned@3")
    found = find(tally, active="base@1", canary="learned@3", alpha=0.05)
    canary = CANARY | {"max_hours": 10} | fields.pop("canary", {})
    terms = order(**{"on_success": "promote", "canary": canary} | fields)
    return after_canary(terms, trial, tally, found, 0.05, broken, now or active(), NOW + later_s)


def test_the_test_on_clicks_promotes_what_is_better_and_discards_what_is_worse() -> None:
    assert tried(40, 2).kind is StepKind.PROMOTED
    assert "learned@3 won 40 and base@1 2" in tried(40, 2).said
    assert tried(40, 2, on_success="hold").kind is StepKind.HELD
    assert tried(2, 40).kind is StepKind.DISCARDED
    assert tried(25, 20).kind is None
    assert "is tried for 10.0 hours more at most. Of 45 requests" in tried(25, 20).said
    assert tried(0, 0).kind is None
    assert tried(19, 0).kind is None  # its rules could not have spoken yet
    assert tried(19, 0, asked=20).kind is StepKind.PROMOTED


def test_what_breaks_a_rule_is_not_promoted_though_its_clicks_are_better() -> None:
    why = "Rule latency: slow"
    assert (tried(40, 2, broken=why).kind, tried(40, 2, broken=why).said) == (StepKind.DISCARDED, why)
    assert tried(40, 2, on_success="hold", broken=why).kind is StepKind.DISCARDED
    assert tried(40, 2, active(5, reason="rule", note="Rule errors: many"), broken=why).said.endswith("errors: many")


def test_it_need_not_be_better_where_a_loss_is_allowed() -> None:
    assert tried(1000, 1000).kind is None
    assert tried(1000, 1000, canary={"max_loss": 0.1}).kind is StepKind.PROMOTED
    assert tried(20, 20, canary={"max_loss": 0.1}).kind is None  # too few to rule it out
    assert tried(800, 1000, canary={"max_loss": 0.2}).kind is StepKind.DISCARDED  # what is worse never is


def test_without_a_decision_it_is_discarded_in_the_end() -> None:
    assert tried(25, 20, later_s=10 * HOUR_S - 1).kind is None
    late = tried(25, 20, later_s=10 * HOUR_S)
    assert late.kind is StepKind.DISCARDED
    assert late.said.startswith("10 hours are over without a decision. Of 45 requests")


def test_whoever_else_ends_the_canary_ends_the_round() -> None:
    ended = tried(40, 2, active(5, reason="rule", note="Rule errors: many"))
    assert (ended.kind, ended.said) == (StepKind.DISCARDED, "Its canary was ended. Rule errors: many")
    assert tried(40, 2, active(5, reason="rollback")).kind is StepKind.DISCARDED
    more = tried(40, 2, active(5, reason="canary", canary=trying("learned@3")))
    assert (more.kind, "with learned@3 as canary" in more.said) == (StepKind.DISCARDED, True)
    by_hand = tried(0, 0, active(5, encoder="learned@3", encoder_id=7))
    assert (by_hand.kind, by_hand.said) == (StepKind.PROMOTED, "Somebody activated it: generation 5.")
