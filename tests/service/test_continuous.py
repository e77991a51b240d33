"""Continuous tuning over the real service: what the standing order does by itself, and what ends it.

The test plays the trainer, and its clock says when time is over.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app import continuous
from app.client import ApiError
from app.continuous import ContinuousTuner
from app.errors import Conflict
from app.judgments import Content, JudgedNow
from app.passages.disk import copy_tree
from app.registry import JobStatus, NewStep, Registry, StepKind
from app.registry.copying import copy_registry
from app.registry.job_records import AT_WORK
from app.registry.signals import Signal
from app.rounds import HOUR_S
from app.settings import Settings
from app.webhook import Webhook
from app.wire.continuous import ContinuousStep
from tests.conftest import Service, running, wait_until
from tests.postgres import Server
from tests.service import encoders
from tests.service.keys import SERVICE_KEY, as_bearer
from tests.service.test_cli import adiabat
from tests.service.test_tuning_jobs import passages, question
from tests.test_webhook import SECRET, receiving

NAMES = ("bees", "wasps")
# Everybody, and whoever does not say who they are is somebody else each time.
BOTH: dict[str, Any] = {"percent": 100, "sticky_by": "X-User-Id", "interleave": True}
BOTH |= {"rules": {"min_requests": 20, "clicks": False}}
ENOUGH = 45  # judged questions: 36 of them to tune on
numbers = itertools.count(ENOUGH)
both_databases = pytest.mark.parametrize(
    "stocked", [None, "postgresql"], indirect=True, ids=["sqlite", "postgresql"], scope="module"
)


class Clock:
    """The database's, and `ahead` seconds more."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._registry.database.now() + self.ahead


class World:
    def __init__(self, service: Service, clock: Clock) -> None:
        self.service = service
        self.client = service.client
        self.registry = service.parts.registry
        self.clock = clock
        self.tuner = self.another(self.registry)
        self.http = httpx.Client(base_url=service.url, trust_env=False, headers=as_bearer(SERVICE_KEY), timeout=60)

    def another(self, registry: Registry) -> ContinuousTuner:
        """What another service on this registry has."""
        parts = self.service.parts
        silent = Webhook(None, None, lambda _: None)
        return ContinuousTuner(
            registry, parts.switcher, parts.datasets, silent, wake=parts.jobs.wake, leads=lambda: True, clock=self.clock
        )

    def order(self, **fields: Any) -> None:
        self.client.set_continuous_tuning("learned", **{"min_new_judgments": 1} | fields)

    def judge(self) -> None:
        n = next(numbers)
        self.client.judge(f"{question(n % 60)} again {n}", f"p{n % 60}", 1)

    def click(self) -> None:
        """On what is judged already."""
        answer = self.client.search(question(7), limit=50)
        place = next(place for place, hit in enumerate(answer.hits, 1) if hit.id == "p7")
        self.client.feedback(answer.search_id, [("p7", place)])

    def used(self) -> None:
        """By a round that came to nothing: whatever is judged or clicked so far."""
        newest, *_ = self.registry.continuous.page(1)
        at = self.registry.database.now()
        gone = NewStep(kind=StepKind.DISCARDED, at=at, said="It is used.", judged_until=at)
        self.registry.continuous.take(newest.sequence, gone)

    def looks(self) -> ContinuousStep:
        """The newest step after a look."""
        self.service.parts.query_log.flush()
        self.tuner.look()
        return self.newest()

    def newest(self) -> ContinuousStep:
        return self.client.continuous_history(limit=1).steps[0]

    def kinds(self, count: int) -> list[str]:
        return [step.kind for step in self.client.continuous_history(limit=count).steps][::-1]

    def tuned(self, status: JobStatus = JobStatus.SUCCEEDED, name: str = "bees", **values: Any) -> None:
        """The trainer's part."""
        job = self.registry.jobs.get(self.newest().job_id or "")
        wait_until(lambda: self.registry.jobs.get(job.id).status is JobStatus.PREPARED)
        claimed = self.registry.jobs.claim("test")
        assert claimed is not None
        assert claimed.id == job.id
        made = {"encoder_id": self.registry.encoders.find(name).id} if status is JobStatus.SUCCEEDED else {}
        assert self.registry.jobs.move(job.id, status, only_from=AT_WORK, **made | values)

    def begun(self, **order: Any) -> None:
        """A round whose tuning made `bees`."""
        self.order(**order)
        self.judge()
        assert self.looks().kind == "started"
        self.tuned()

    def prefer(self, team: str, count: int = 30) -> None:
        """So many users click on the first hit of one encoder's."""
        for _ in range(count):
            answer = self.http.post("/search", json={"query": question(7), "limit": 6}).json()
            assert answer["rule"] == "interleaved"
            teams = self.client.queries(limit=1).searches[0].teams or ""
            if (place := teams.find(team)) >= 0:
                self.client.feedback(answer["search_id"], [(answer["hits"][place]["id"], place + 1)])

    @property
    def active(self) -> tuple[str, int]:
        found = self.client.active_encoder().encoder
        return found.name, found.generation or 0

    @property
    def canary(self) -> str | None:
        found = self.client.active_encoder().canary
        return found.encoder if found else None


@pytest.fixture(scope="module")
def stocked(
    request: pytest.FixtureRequest, seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("continuous")
    copy_tree(seeded, folder / "data")
    settings = Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        trainer=False,
        source_dirs=(folder,),
        threads=1,
        query_log=1.0,
        api_key=SERVICE_KEY,
    )
    on_postgresql = getattr(request, "param", None) == "postgresql"
    if on_postgresql:
        server: Server = request.getfixturevalue("postgres")
        url = server.fresh()
        source, target = Registry(settings.registry_path), Registry(url)
        copy_registry(source.database, target.database)
        source.close()
        target.close()
        settings = settings.model_copy(update={"registry_url": url})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(continuous, "LOOK_S", 3600)  # the tests look
        with running(settings) as service:
            client = service.client
            client.upsert_passages(passages())
            for seed, name in enumerate(NAMES, 1):
                client.register_encoder(
                    name, path=str(encoders.near(tiny, folder / name, scale=0.5, seed=seed)), force=True
                )
            for n in range(ENOUGH):
                client.judge(question(n), f"p{n}", 1)
            yield service
    if on_postgresql:
        server.drop(url)


@pytest.fixture
def world(stocked: Service) -> Iterator[World]:
    """No order, no round, the base active, and all that is judged was used by a round before."""
    made = World(stocked, Clock(stocked.parts.registry))
    made.order(dry_run=True)
    made.used()
    yield made
    made.client.remove_continuous_tuning()
    made.looks()
    if made.active[0] != "base" or made.canary:
        made.client.activate("base")
    made.http.close()


@both_databases
def test_from_judgments_to_a_promotion_every_step_is_told(world: World) -> None:
    client = world.client
    start = world.active[1]
    world.order(min_new_judgments=3, canary=BOTH, on_success="promote")
    world.judge()
    world.judge()
    world.looks()
    found = client.continuous_tuning()
    assert (found.state, found.next_step, found.new_judgments) == ("waiting", None, 2)
    assert found.said == "It waits for 1 more new judgments (2 of 3)."
    world.judge()
    assert client.continuous_tuning().next_step == "started"
    assert world.newest().kind == "set"  # reading begins nothing
    begun = world.looks()
    assert (begun.kind, begun.generation) == ("started", start)
    job = client.tuning_job(begun.job_id or "")
    assert (job.name, job.parent, job.dataset, job.activate) == ("learned", "base@1", "judgments", "never")
    entry = client.audit(action="tuning-started").entries[0]
    assert (entry.target, entry.key) == (job.id, None)
    assert entry.detail | {"by": "continuous-tuning", "set_by": "ADIABAT_API_KEY"} == entry.detail
    world.looks()
    assert client.continuous_tuning().state == "tuning"

    world.tuned()
    assert world.active == ("base", start)
    tried = world.looks()
    assert (tried.kind, tried.encoder, tried.generation) == ("canary", "bees@1", start + 1)
    assert (world.canary, world.active) == ("bees@1", ("base", start + 1))
    world.looks()
    assert client.continuous_tuning().state == "canary"
    assert "is tried for 336.0 hours more at most. Nothing to tell yet" in client.continuous_tuning().said
    world.prefer("c")
    done = world.looks()
    assert (done.kind, done.encoder, done.generation) == ("promoted", "bees@1", start + 2)
    assert (world.active, world.canary) == (("bees", start + 2), None)
    newest = client.history(1)[0]
    assert (newest.reason, newest.note) == ("continuous", f"Continuous tuning: {done.said}")
    entry = client.audit(action="switched").entries[0]
    assert (entry.generation, entry.detail["by"], entry.detail["set_by"]) == (
        start + 2,
        "continuous-tuning",
        "ADIABAT_API_KEY",
    )
    assert world.kinds(4) == ["set", "started", "canary", "promoted"]
    assert world.looks() == done  # what was clicked meanwhile is a new judgment, and not enough
    assert client.continuous_tuning().said.startswith("It waits for ")
    assert client.rollback().encoder.name == "base"


@both_databases
def test_two_services_never_take_one_step_twice(world: World) -> None:
    settings = world.service.settings
    others = [Registry(settings.registry_at) for _ in range(3)]
    tuners = [world.another(registry) for registry in (*others, *others)]
    start, jobs = world.active[1], len(world.client.tuning_jobs())

    def all_look() -> None:
        with ThreadPoolExecutor(len(tuners)) as threads:
            list(threads.map(ContinuousTuner.look, tuners))

    world.order(canary=BOTH, on_success="promote")
    world.judge()
    all_look()
    world.tuned()
    all_look()
    assert world.active == ("base", start + 1)
    world.prefer("c")
    world.service.parts.query_log.flush()
    all_look()
    assert world.kinds(4) == ["set", "started", "canary", "promoted"]
    assert len(world.client.tuning_jobs()) == jobs + 1
    assert world.active == ("bees", start + 2)
    for registry in others:
        registry.close()


def test_what_its_users_like_less_is_discarded(world: World) -> None:
    world.judge()
    world.judge()
    world.begun(min_new_judgments=3, canary=BOTH, on_success="promote")
    start = world.active[1]
    assert world.looks().kind == "canary"
    world.prefer("a")
    gone = world.looks()
    assert (gone.kind, gone.generation) == ("discarded", start + 2)
    assert "The canary is worse" in gone.said
    assert (world.active, world.canary) == (("base", start + 2), None)
    assert world.client.encoder("bees@1").state == "ready"  # it stays registered
    assert world.client.history(1)[0].note == f"Continuous tuning: {gone.said}"
    assert world.looks() == gone  # once


def test_what_the_gate_rejects_is_never_tried(world: World) -> None:
    start = world.active
    world.order(on_success="promote", canary=BOTH)
    world.judge()
    world.looks()
    world.tuned(JobStatus.REJECTED, reason="the gate said no: too small")
    gone = world.looks()
    assert (gone.kind, gone.said) == ("discarded", "The tuning job ended as rejected: the gate said no: too small")
    assert world.active == start


def test_without_a_canary_the_gate_is_enough_and_the_last_step_may_be_a_persons(world: World) -> None:
    world.begun()
    start = world.active
    assert world.looks().kind == "held"
    assert world.active == start
    world.begun(on_success="promote")
    assert world.looks().kind == "promoted"
    assert world.active == ("bees", start[1] + 1)


def test_hours_that_pass_begin_a_round_and_end_a_canary(world: World) -> None:
    world.order(min_new_judgments=None, every_hours=24, canary=BOTH | {"max_hours": 48}, on_success="promote")
    world.judge()
    world.clock.ahead = 23.9 * HOUR_S
    assert world.looks().kind == "set"
    world.clock.ahead = 24.1 * HOUR_S
    assert world.looks().kind == "started"
    world.tuned()
    assert world.looks().kind == "canary"
    world.clock.ahead += 47.9 * HOUR_S
    assert world.looks().kind == "canary"
    world.clock.ahead += 0.2 * HOUR_S
    gone = world.looks()
    assert (gone.kind, gone.said.partition(".")[0]) == ("discarded", "48 hours are over without a decision")
    assert (world.active[0], world.canary) == ("base", None)


def test_whoever_switches_meanwhile_ends_the_round(world: World) -> None:
    world.order(canary=BOTH, on_success="promote")
    world.judge()
    job_id = world.looks().job_id or ""
    world.client.activate("wasps")
    gone = world.looks()
    assert gone.kind == "discarded"
    assert "(activate: wasps@1)" in gone.said
    wait_until(lambda: world.client.tuning_job(job_id).status == "cancelled")
    world.client.activate("base")

    world.begun(canary=BOTH, on_success="promote")
    assert world.looks().kind == "canary"
    mine = world.client.start_canary("wasps", 100, interleave=True, rules=False)
    assert world.looks().kind == "discarded"
    assert (world.canary, world.active[1]) == ("wasps@1", mine.encoder.generation)  # theirs goes on


def test_an_order_that_goes_takes_its_round_with_it(world: World) -> None:
    world.order()
    world.judge()
    job_id = world.looks().job_id or ""
    world.client.remove_continuous_tuning()
    found = world.client.continuous_tuning()
    assert (found.order, found.state, found.next_step) == (None, "tuning", "discarded")
    assert world.looks().said == "The order was taken back while the round was under way."
    wait_until(lambda: world.client.tuning_job(job_id).status == "cancelled")
    assert world.client.continuous_tuning().state == "off"

    world.begun(canary=BOTH)
    world.looks()
    assert world.canary == "bees@1"
    world.order(canary=BOTH | {"max_hours": 1})
    assert world.looks().said == "Another order was set while the round was under way."
    assert world.canary is None


def test_one_experiment_at_a_time(world: World) -> None:
    world.client.start_canary("wasps", 100, interleave=True, rules=False)
    world.order()
    world.judge()
    assert world.looks().kind == "set"
    assert "tries wasps@1, and there is one experiment at a time" in world.client.continuous_tuning().said
    world.client.rollback()
    assert world.looks().kind == "started"


def test_what_a_rule_ends_is_discarded_with_the_rules_words(world: World) -> None:
    world.begun(canary=BOTH, on_success="promote")
    generation = world.looks().generation or 0
    world.service.parts.switcher.end_canary(generation, "Rule errors: many")
    gone = world.looks()
    assert (gone.kind, gone.said) == ("discarded", "Its canary was ended. Rule errors: many")


def test_what_breaks_a_rule_at_that_moment_is_not_promoted(world: World) -> None:
    world.begun(canary=BOTH, on_success="promote")
    generation = world.looks().generation or 0
    world.prefer("c")
    failing = {"active": Signal(requests=300), "canary": Signal(requests=300, errors=150)}
    world.registry.signals.add({(generation, role): signal for role, signal in failing.items()})
    gone = world.looks()
    assert (gone.kind, gone.generation, world.active[0], world.canary) == ("discarded", generation + 1, "base", None)
    assert gone.said.startswith("Rule errors: ")
    assert "searches of the canary failed in the last" in gone.said


def test_a_person_decides_on_what_is_held_and_a_running_canary_stays_till_then(world: World) -> None:
    world.begun(canary=BOTH)
    world.looks()
    world.prefer("c")
    held = world.looks()
    assert (held.kind, world.canary) == ("held", "bees@1")
    world.judge()
    world.looks()
    assert world.newest().kind == "held"
    world.client.activate("bees")
    assert world.looks().kind == "started"


def test_an_interrupted_tuning_is_taken_up_again_and_not_for_ever(world: World) -> None:
    world.order()
    world.judge()
    job_id = world.looks().job_id or ""
    for number in range(5):
        world.clock.ahead = 0
        world.tuned(JobStatus.INTERRUPTED, reason="the trainer stopped")
        before = world.newest()
        assert world.looks() == before
        world.clock.ahead = 61 * 2**number
        assert (world.looks().kind, world.newest().sequence) == ("resumed", before.sequence + 1)
    world.tuned(JobStatus.INTERRUPTED, reason="the trainer stopped")
    assert world.looks().said == "The tuning was interrupted 6 times, at last: the trainer stopped."
    assert world.client.tuning_job(job_id).status == "cancelled"
    assert world.kinds(8) == ["set", "started", *["resumed"] * 5, "discarded"]


def test_a_dry_run_begins_nothing_and_tells_each_time(world: World) -> None:
    before = len(world.client.tuning_jobs())
    world.order(dry_run=True, canary=BOTH, on_success="promote")
    for _ in range(2):
        world.judge()
        told = world.looks()
        assert told.kind == "dry-run"
        assert told.said.startswith("Would begin: 1 new judgments, and 1 were asked for;")
        assert told.said.endswith("is tried as a canary of 100% for 336 hours at most, and then is promoted.")
        assert world.looks() == told
    assert len(world.client.tuning_jobs()) == before


def test_neither_a_dry_run_nor_an_order_that_is_replaced_uses_judgments_up(world: World) -> None:
    world.order(min_new_judgments=3, dry_run=True)
    for _ in range(3):
        world.judge()
    assert world.looks().kind == "dry-run"
    assert world.client.continuous_tuning().new_judgments == 0  # told once
    world.order(min_new_judgments=3)
    assert world.client.continuous_tuning().new_judgments == 3
    assert world.looks().kind == "started"
    world.order(min_new_judgments=2)
    assert world.looks().said == "Another order was set while the round was under way."
    assert world.client.continuous_tuning().new_judgments == 3
    assert world.looks().said.startswith("3 new judgments, and 2 were asked for;")
    world.tuned(JobStatus.REJECTED, reason="too small")
    assert world.looks().kind == "discarded"
    assert world.client.continuous_tuning().new_judgments == 0  # a round that its own order ends has used them


def test_what_is_judged_is_counted_only_where_enough_may_be_new(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, content = [], JudgedNow.content

    def watched(judged: JudgedNow) -> Content:
        counted.append(judged)
        return content(judged)

    monkeypatch.setattr(JudgedNow, "content", watched)
    world.order(min_new_judgments=3, every_hours=24)
    counted.clear()
    world.judge()
    world.click()
    assert (world.looks().kind, counted) == ("set", [])
    world.judge()
    assert (world.looks().kind, len(counted)) == ("set", 1)  # the click is on what was judged before: two are new
    world.used()
    counted.clear()
    world.clock.ahead = 25 * HOUR_S
    assert (world.looks().kind, counted) == ("discarded", [])  # its time is over, and nothing may be new
    world.judge()
    assert world.looks().kind == "started"


def test_a_stored_order_that_no_version_knows_is_told_and_set_anew(world: World) -> None:
    world.order()
    terms = dict((world.registry.continuous.page(1)[0]).terms or {})
    world.registry.continuous.set(terms | {"min_new_judgments": 0, "canary": {"percent": 10, "hours": 3}}, "by hand")
    for ask in (world.client.continuous_tuning, world.tuner.look):
        with pytest.raises((ApiError, Conflict)) as caught:
            ask()
        said = str(caught.value)
        assert "canary.hours: is not known here; did you mean 'max_hours'?" in said
        assert "min_new_judgments: must be greater than or equal to 1, not 0" in said
        assert "PUT /continuous-tuning sets it anew" in said
    world.order()
    assert world.client.continuous_tuning().state == "waiting"


@both_databases
def test_a_cursor_that_no_column_holds_is_refused(world: World) -> None:
    for cursor in ("9" * 18, str(2**31), "²", "-1"):
        with pytest.raises(ApiError, match="cursor: is not the next_cursor of an answer") as caught:
            world.client.continuous_history(cursor=cursor)
        assert caught.value.status == 422
    assert world.client.continuous_history(cursor=str(2**31 - 1)).steps


def test_a_guard_that_is_gone_ends_the_round_where_it_begins(world: World) -> None:
    line = {
        "content": '{"query": "why", "split": "test", "relevant": ["p1"]}',
        "headers": {"Content-Type": "application/x-ndjson"},
    }
    world.http.put("/datasets/guarding", **line).raise_for_status()
    world.order(guards=["guarding"])
    world.client.delete_dataset("guarding")
    world.judge()
    gone = world.looks()
    assert (gone.kind, gone.job_id) == ("discarded", None)
    assert gone.said.startswith("No tuning could be begun: ")
    assert world.looks() == gone  # not again and again


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"min_new_judgments": None}, 422, "nothing says when to tune: send every_hours, min_new_judgments, or both"),
        ({"min_new_judgments": 0}, 422, "min_new_judgments: must be greater than or equal to 1, not 0"),
        ({"every_hours": 0}, 422, "every_hours: must be greater than or equal to 0.01, not 0"),
        ({"guards": ["none"]}, 404, "none"),
        ({"guards": ["judgments:test"]}, 422, "'judgments' has no split 'test' but 'train' and 'dev'"),
        ({"guards": ["dev:test"]}, 422, "is what a job's own dev split is called"),
        ({"canary": {"percent": 101}}, 422, "canary.percent: must be less than or equal to 100, not 101"),
        ({"canary": {"percent": 100}}, 422, "percent 100 leaves nothing to compare with"),
        ({"canary": {"percent": 5, "max_hours": 1e9}}, 422, "canary.max_hours: must be less than or equal to 8784"),
        ({"canary": {"percent": 5, "max_loss": -1}}, 422, "canary.max_loss: must be greater than or equal to 0"),
        ({"on_success": "pray"}, 422, "on_success: must be 'hold' or 'promote', not 'pray'"),
        ({"recipe": {"epochs": 0}}, 422, "recipe.epochs"),
        ({"hours": 1}, 422, "hours: is not known here"),
    ],
)
def test_what_cannot_be_an_order_is_refused_in_words(
    world: World, fields: dict[str, Any], status: int, said: str
) -> None:
    before = world.newest()
    with pytest.raises(ApiError) as caught:
        world.order(**fields)
    assert (caught.value.status, said in caught.value.detail) == (status, True), caught.value.detail
    with pytest.raises(ApiError, match="'base' means the passage encoder"):
        world.client.set_continuous_tuning("base", min_new_judgments=1)
    assert world.newest() == before


def test_a_canary_asks_for_what_decides_it(settings: Settings) -> None:
    with running(settings) as service:
        put = service.client.set_continuous_tuning
        with pytest.raises(ApiError, match=r"canary\.sticky_by: 'key' .* tells nobody apart"):
            put("learned", min_new_judgments=1, canary={"percent": 5})
        with pytest.raises(ApiError, match="canary: is decided by clicks, and this service keeps no query log"):
            put("learned", min_new_judgments=1, canary={"percent": 5, "sticky_by": "X-User-Id"})
        assert put("learned", min_new_judgments=1).said.startswith("Nothing is judged yet")


def test_the_command_line_sets_shows_and_removes_it(world: World) -> None:
    def said(*arguments: str) -> str:
        return adiabat(world.service, "continuous", *arguments, "--api-key", SERVICE_KEY)

    trial = ("--canary", "10", "--sticky-by", "X-User-Id", "--rule", "latency=null", "--max-hours", "48")
    told = said("set", "learned", "--min-new-judgments", "3", "--promote", *trial)
    assert "waiting: It waits for 3 more new judgments (0 of 3)." in told
    order = world.client.continuous_tuning().order
    assert order is not None
    assert order.canary is not None
    assert order.canary.rules is not None
    assert (order.on_success, order.canary.max_hours, order.canary.rules.latency) == ("promote", 48, None)
    assert "last: " in said("show")
    assert "set: At 3 new judgments 'learned' is tuned." in said("history")
    assert "there is no standing order" in said("remove")
    assert world.client.continuous_tuning().order is None


def test_the_webhook_is_told_each_step(world: World) -> None:
    parts = world.service.parts
    world.order(dry_run=True)
    world.judge()
    with receiving() as receiver:
        webhook = Webhook(receiver.url, SECRET, lambda _: None)
        webhook.start()
        tuner = ContinuousTuner(
            world.registry, parts.switcher, parts.datasets, webhook, wake=parts.jobs.wake, leads=lambda: True
        )
        tuner.look()
        wait_until(lambda: len(receiver.got) == 1)
        webhook.stop()
        ((_, _, body),) = receiver.got
    told = orjson.loads(body)
    assert (told["type"], told["data"]["said"]) == ("continuous-tuning.dry-run", world.newest().said)
