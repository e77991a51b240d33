"""The built-in dataset `judgments`: as it is now to whoever looks, as it was to the job that was started with it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app import datasets
from app.beir import check, digest, read_qrels, splits
from app.client import AdiabatClient, ApiError
from app.registry import JobStatus
from app.settings import Settings
from tests.conftest import Service, running, wait_until
from tests.service.evaluations import working
from tests.service.test_datasets import contents, put_lines
from tests.service.test_tuning_jobs import GENTLE, passages, question

QUESTIONS = 60


@pytest.fixture
def stocked(service: Service) -> Service:
    service.client.upsert_passages(passages())
    return service


def judge(client: AdiabatClient, numbers: range) -> None:
    """Question n is answered by passage n, in that order."""
    for n in numbers:
        client.judge(question(n), f"p{n}", 1 + n % 3, lang="en" if n % 2 else "de")


def refused(status: int, call: object, *arguments: object, **named: object) -> tuple[str, str]:
    assert callable(call)
    with pytest.raises(ApiError) as caught:
        call(*arguments, **named)
    assert caught.value.status == status
    return caught.value.slug, caught.value.detail


def used(service: Service, job_id: str) -> Path:
    """The folder that the job reads."""
    (content,) = service.parts.registry.jobs.find(job_id).dataset_digests.values()
    return service.parts.artifacts.dataset(content)


def test_it_is_shown_with_its_counts_as_soon_as_something_is_judged(stocked: Service) -> None:
    client = stocked.client
    assert client.datasets() == []
    slug, said = refused(404, client.dataset, "judgments")
    assert (slug, said) == ("dataset-not-found", "The built-in dataset 'judgments' is empty; POST /judgments fills it.")
    judge(client, range(10))
    client.judge(question(9), "p0", 0)
    shown = client.dataset("judgments")
    assert {name: split.model_dump() for name, split in shown.splits.items()} == {
        "dev": {"queries": 2, "pairs": 3, "languages": {"de": 1, "en": 1}},
        "train": {"queries": 8, "pairs": 8, "languages": {"de": 4, "en": 4}},
    }
    assert (shown.queries, shown.passages, shown.languages) == (10, None, {"de": 5, "en": 5})
    assert shown.created_at == client.judgments(limit=1).judgments[0].judged_at
    put_lines(stocked, {"query": "why", "relevant": ["p1"]}, name="a")
    put_lines(stocked, {"query": "why", "relevant": ["p1"]}, name="z")
    assert [each.name for each in client.datasets()] == ["a", "judgments", "z"]
    assert client.datasets()[1].digest == shown.digest
    assert len(contents(stocked)) == 1  # of the two that were uploaded: who looks writes nothing


def test_judged_passages_that_were_deleted_since_are_listed(stocked: Service) -> None:
    client = stocked.client
    judge(client, range(5))
    client.delete_passages(["p3", "p1"])
    unknown = client.dataset("judgments").unknown_passages
    assert unknown is not None
    assert (unknown.count, unknown.ids) == (2, ["p1", "p3"])


def test_it_is_neither_uploaded_nor_deleted(stocked: Service) -> None:
    judge(stocked.client, range(1))
    for answer in (
        put_lines(stocked, {"query": "why", "relevant": ["p1"]}, name="judgments"),
        httpx.delete(f"{stocked.url}/datasets/judgments", trust_env=False),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:adiabat:problem:dataset-built-in")
        assert "POST /judgments adds to it, DELETE /judgments/{id} takes from it" in answer.json()["detail"]
    assert stocked.client.dataset("judgments").queries == 1


def test_what_is_too_little_is_refused_before_anything_starts(stocked: Service) -> None:
    client = stocked.client
    for call in (client.create_tuning_job, lambda *_: client.create_evaluation(["judgments:train"])):
        assert "POST /judgments fills it" in refused(404, call, "bees", "judgments")[1]
    judge(client, range(3))
    slug, said = refused(422, client.create_tuning_job, "bees", "judgments")
    assert slug == "bad-dataset"
    assert "'judgments' has 2 of the 32 pairs" in said
    assert "send more by POST /judgments." in said
    assert "no split 'test' but dev and train" in refused(422, client.create_evaluation, ["judgments"])[1]
    judge(client, range(3, QUESTIONS))
    assert "no split 'test'" in refused(422, client.create_tuning_job, "bees", "judgments", guards=["judgments"])[1]
    assert (client.tuning_jobs(), client.evaluations(), contents(stocked)) == ([], [], set())


def test_a_job_reads_what_was_judged_when_it_was_made_and_nothing_is_written_twice(
    stocked: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = stocked.client
    judge(client, range(50))
    shown = client.dataset("judgments")
    job = client.create_tuning_job("bees", "judgments", guards=["judgments:dev"])
    folder = used(stocked, job.id)
    assert digest(folder) == shown.digest
    assert check(folder)["splits"] == {name: split.model_dump() for name, split in shown.splits.items()}
    wait_until(lambda: stocked.parts.registry.jobs.get(job.id).status is JobStatus.PREPARED)

    with monkeypatch.context() as broken:
        broken.setattr(datasets, "check", None)  # what a second copy would be made with
        same = client.create_evaluation(["judgments:dev"])
    assert used(stocked, same.id) == folder

    judge(client, range(50, QUESTIONS))
    newer = client.create_evaluation(["judgments:dev"])
    assert used(stocked, newer.id) != folder
    assert digest(folder) == shown.digest
    assert len(contents(stocked)) == 2
    (listed,) = client.datasets()
    assert (listed.name, listed.queries) == ("judgments", QUESTIONS)

    client.cancel_tuning_job(job.id)
    client.cancel_evaluation(same.id)
    wait_until(lambda: contents(stocked) == {used(stocked, newer.id).name})


def test_what_was_taken_back_is_in_no_file_that_no_job_needs(stocked: Service) -> None:
    client = stocked.client
    judge(client, range(50))
    ids = [each.id for each in client.judgments().judgments]
    job = client.create_tuning_job("bees", "judgments")
    client.delete_judgment(ids[0])
    assert contents(stocked) == {used(stocked, job.id).name}  # a job keeps what it was started with
    client.cancel_tuning_job(job.id)
    wait_until(lambda: contents(stocked) == set())
    ended = client.create_evaluation(["judgments:dev"])
    client.cancel_evaluation(ended.id)
    wait_until(lambda: not (stocked.settings.jobs_dir / ended.id).exists())
    assert len(contents(stocked)) == 1
    client.delete_judgment(ids[1])
    assert contents(stocked) == set()
    assert client.dataset("judgments").queries == 48


def test_it_is_the_same_after_a_restart(settings: Settings) -> None:
    with running(settings) as service:
        service.client.upsert_passages(passages())
        judge(service.client, range(50))
        shown = service.client.dataset("judgments")
        evaluation = service.client.create_evaluation(["judgments:dev"]).id
    with running(settings) as service:
        assert service.client.dataset("judgments") == shown
        assert digest(used(service, evaluation)) == shown.digest


def test_jobs_and_judgments_that_come_at_once_do_not_harm_each_other(stocked: Service) -> None:
    client = stocked.client
    judge(client, range(45))
    done = threading.Event()

    def go_on_judging() -> None:
        n = 0
        while not done.is_set():
            client.judge(f"{question(n % QUESTIONS)} again {n}", f"p{n % QUESTIONS}", n % 4)
            n += 1

    with ThreadPoolExecutor(5) as callers:
        judging = callers.submit(go_on_judging)
        try:
            made = list(callers.map(lambda _: client.create_evaluation(["judgments:dev"]).id, range(12)))
        finally:
            done.set()
        judging.result()
    for evaluation in made:
        content = stocked.parts.registry.jobs.find(evaluation).dataset_digests["judgments"]
        assert digest(stocked.parts.artifacts.dataset(content)) == content


@pytest.mark.slow
def test_what_users_judge_tunes_an_encoder_and_measures_it(stocked: Service) -> None:
    client = stocked.client
    judge(client, range(QUESTIONS))
    for n in range(5):  # what is not relevant, some of it to queries of which nothing else is said
        client.judge(question(n), f"p{n + 1}", 0)
        client.judge(f"who knows {n}", "p0", 0)
    with working(stocked.settings):
        job = client.create_tuning_job(
            "bees", "judgments", guards=["judgments:dev"], recipe=GENTLE, gate={"min_gain": -1, "max_guard_loss": 1}
        )
        done = client.wait_for_job(job.id)
        evaluation = client.wait_for_evaluation(client.create_evaluation(["judgments:dev"], ["base"]).id)
    assert done.status == "succeeded", done.reason
    assert done.result is not None
    assert (done.result["pairs"], done.result["queries"]) == (48, {"dev": 12, "judgments:dev": 12})
    assert evaluation.result is not None, evaluation.reason
    measured = evaluation.result.matrix["base@1"]["judgments:dev"]
    assert measured.queries == 12
    assert {name: cell.queries for name, cell in measured.languages.items()} == {"de": 6, "en": 6}
    grades = [score for path in splits(used(stocked, job.id)) for *_, score in read_qrels(path)]
    assert (len(grades), grades.count(0)) == (70, 10)
