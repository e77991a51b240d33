"""From what users click to a promotion, and nobody's hand in between: a real service with its own trainer, on samples/.

The users are simulated: they know which passages answer them, and click on the first of those that they see.
"""

import itertools
import json
import random
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.cli.datasets import zip_folder
from app.client import AdiabatClient
from app.registry import Registry
from app.registry.copying import copy_registry
from app.settings import Settings
from tests.conftest import process, wait_until
from tests.postgres import Server
from tests.service.test_tuning_jobs import GENTLE

pytestmark = pytest.mark.nightly

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
TRIAL = {"percent": 100, "sticky_by": "X-User-Id", "interleave": True, "rules": {"min_requests": 50}}
NEW = 100
DEEP = 100  # hits that users look at: the tiny encoder of these tests knows little
RECIPE = GENTLE | {"epochs": 8, "soften": 1.0, "reach": 0}  # for the tiny encoder hardly a pair is within reach
MOST = 3_000  # requests of a canary
KILLED_AFTER = 25  # of them: fewer than any rule waits for
LOGGING = {"ADIABAT_QUERY_LOG": "1"}


def questions() -> list[tuple[str, set[str]]]:
    """Texts with the passages that answer them."""
    relevant: dict[str, set[str]] = defaultdict(set)
    for line in (SAMPLES / "qrels" / "train.tsv").read_text().splitlines()[1:]:
        query_id, passage_id, score = line.split("\t")
        if int(score) > 0:
            relevant[query_id].add(passage_id)
    rows = [json.loads(line) for line in (SAMPLES / "queries.jsonl").read_text().splitlines()]
    return [(row["text"], relevant[row["_id"]]) for row in rows if row["_id"] in relevant]


def ask(client: AdiabatClient, http: httpx.Client, text: str, relevant: set[str]) -> None:
    answer = http.post("/search", json={"query": text, "limit": DEEP}).json()
    for place, hit in enumerate(answer["hits"], 1):
        if hit["id"] in relevant:
            client.feedback(answer["search_id"], [(hit["id"], place)])
            return


def prepare(client: AdiabatClient, folder: Path) -> None:
    """The passages of the samples, and a guard."""
    rows = [json.loads(line) for line in (SAMPLES / "corpus.jsonl").read_text().splitlines()]
    client.upsert_passages({"id": row["_id"], "text": row["text"], "title": row["title"]} for row in rows)
    client.put_dataset("beekeeping", zip_folder(SAMPLES, folder / "bees.zip", corpus=False))


def order(client: AdiabatClient) -> None:
    client.set_continuous_tuning(
        "learned",
        min_new_judgments=NEW,
        guards=["beekeeping:de"],
        recipe=RECIPE,
        gate={"min_gain": -1, "max_guard_loss": 1},
        canary=TRIAL,
        on_success="promote",
    )


def test_what_users_click_tunes_tries_and_promotes_an_encoder(settings: Settings, tmp_path: Path) -> None:
    asked = questions()
    with (
        process(settings, variables=LOGGING) as (_, client),
        httpx.Client(base_url=client.url, trust_env=False, timeout=60) as http,
    ):
        prepare(client, tmp_path)
        order(client)
        for text, relevant in asked:
            ask(client, http, text, relevant)
        wait_until(lambda: client.continuous_tuning().state == "tuning")
        done = client.wait_for_job(client.continuous_history().steps[0].job_id or "")
        assert done.status == "succeeded", done.reason
        wait_until(lambda: client.continuous_tuning().state != "tuning")
        assert client.continuous_tuning().state == "canary", client.continuous_history().steps[0]
        for number, (text, relevant) in enumerate(itertools.cycle(asked)):
            ask(client, http, text, relevant)
            if number % 50 == 0 and client.active_encoder().canary is None:
                break
            assert number < MOST, client.continuous_tuning().said
        steps = client.continuous_history().steps[::-1]
        print(*[f"{step.kind}: {step.said}" for step in steps], sep="\n")
        assert [step.kind for step in steps[:4]] == ["set", "started", "canary", "promoted"]  # the next may begin
        active = client.active_encoder().encoder
        assert (active.name, active.version, active.generation) == ("learned", 1, 3)
        assert client.history()[0].reason == "continuous"
        assert client.tuning_job(steps[1].job_id or "").status == "succeeded"
        assert client.rollback().encoder.name == "base"


def test_two_services_with_a_trainer_each_go_that_road_once_though_the_one_that_leads_is_killed(
    settings: Settings, postgres: Server, qdrant: str, tmp_path: Path
) -> None:
    asked = questions()
    url = postgres.fresh()
    both = settings.model_copy(
        update={
            "registry_url": url,
            "qdrant_url": qdrant,
            "collection": f"adiabat_test_{random.getrandbits(48):x}",
        }
    )
    source, target = Registry(settings.registry_path), Registry(url)
    copy_registry(source.database, target.database)
    source.close()
    target.close()
    with ExitStack() as stack:
        users = [stack.enter_context(httpx.Client(trust_env=False, timeout=60)) for _ in range(2)]
        (leader, first), (_, second) = (stack.enter_context(process(both, variables=LOGGING)) for _ in users)
        clients = first, second
        for http, client in zip(users, clients, strict=True):
            http.base_url = client.url
        prepare(first, tmp_path)
        in_turn = itertools.cycle(zip(clients, users, strict=True))
        for text, relevant in asked:
            ask(*next(in_turn), text, relevant)
        order(second)  # now, so that all clicks count: what is tried is to be plainly better
        wait_until(lambda: second.continuous_tuning().state == "tuning")
        second.wait_for_job(second.continuous_history().steps[0].job_id or "")
        wait_until(lambda: second.continuous_tuning().state == "canary")
        wait_until(lambda: first.active_encoder().canary == second.active_encoder().canary is not None)
        for number, (text, relevant) in enumerate(itertools.cycle(asked)):
            if number == KILLED_AFTER:
                leader.kill()
                assert leader.wait(60) == -9
                in_turn = itertools.cycle([(second, users[1])])
            ask(*next(in_turn), text, relevant)
            if number % 50 == 0 and second.active_encoder().canary is None:
                break
            assert number < MOST, second.continuous_tuning().said
        assert number > KILLED_AFTER
        steps = second.continuous_history().steps[::-1]
        assert [step.kind for step in steps[:4]] == ["set", "started", "canary", "promoted"]
        assert [step.kind for step in steps[4:]] in ([], ["started"])  # the next may begin
        assert [each.reason for each in second.history()] == ["continuous", "canary", "start"]
        assert len(second.tuning_jobs()) == sum(step.kind == "started" for step in steps)
        _, again = stack.enter_context(process(both, variables=LOGGING))
        assert again.active_encoder().encoder == second.active_encoder().encoder
        assert again.active_encoder().encoder.name == "learned"
