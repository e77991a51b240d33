"""A tuning watched live, what becomes of it, and the switch."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from app.registry import JobStatus
from tests.conftest import Service, wait_until
from tests.e2e import stock
from tests.e2e.conftest import Watched, one_thread
from tests.service.evaluations import working

FINISHED_MS = 90_000


def start(page: Page, name: str, gate: dict[str, str], epochs: int = 1) -> None:
    page.goto("/console/tuning?new=1")
    page.get_by_label("name", exact=True).fill(name)
    page.get_by_role("checkbox", name="pumps:de").check()
    for field, value in {"learning rate": "0.001", "epochs": str(epochs), "eval every": "20", **gate}.items():
        page.get_by_label(field, exact=True).fill(value)
    page.get_by_text(re.compile(r"The other \d+ fields")).click()
    page.get_by_label("batch size").fill("16")
    page.get_by_role("button", name="Start tuning").click()
    page.wait_for_url("**/console/tuning/*")


def test_a_tuning_is_watched_to_its_end_activated_and_rolled_back(page: Page, stocked: Service) -> None:
    start(page, "watched", {"min gain": "-1", "max guard loss": "1"}, epochs=60)
    expect(page.locator(".log")).to_contain_text(
        "succeeded: watched@1", timeout=FINISHED_MS
    )  # no look at the page again
    job = next(job for job in stocked.client.tuning_jobs() if job.name == "watched")
    told = [event for event in stocked.client.job_events(job.id) if event.kind == "progress" and "loss" in event.data]
    every_point = re.compile(rf"^M[^L]+(L[^L]+){{{len(told) - 1}}}$")
    expect(page.get_by_role("img", name="Loss by step").locator(".line")).to_have_attribute("d", every_point)
    for name in ("MRR@10 of dev by step", "MRR@10 of each guard by step", "Drift of each guard by step"):
        expect(page.get_by_role("img", name=name).locator(".line")).to_be_visible()
    expect(page.get_by_role("heading", name="What it gained and what it kept")).to_be_visible()

    before = stocked.client.active_encoder().encoder
    page.get_by_role("button", name="Switch to it").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Searches use {before.name}@{before.version} now")
    dialog.get_by_role("button", name="Switch").click()
    expect(dialog.get_by_role("heading", name="watched@1 is active")).to_be_visible()
    after = stocked.client.active_encoder().encoder.generation  # not always the next one: routes count along
    expect(dialog).to_contain_text(f"{before.generation} → {after}")
    dialog.get_by_role("button", name="Done").click()
    expect(page.locator("#serving")).to_contain_text("watched@1")
    assert stocked.client.active_encoder().encoder.name == "watched"

    page.goto("/console/operations")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("heading", name=f"{before.name}@{before.version} is active")).to_be_visible()
    assert stocked.client.active_encoder().encoder.generation == after + 1
    assert stocked.client.history()[0].reason == "rollback"


def test_a_rejected_tuning_says_which_rule_and_by_how_much(page: Page, stocked: Service) -> None:
    start(page, "wanting", {"min gain": "0.9"})
    page.get_by_role("heading", name="Why it was rejected").wait_for(timeout=FINISHED_MS)
    job = next(job for job in stocked.client.tuning_jobs() if job.name == "wanting")
    assert job.result is not None
    short = 0.9 - job.result["dev"]["at_least"]
    expect(page.locator(".reasons").first).to_contain_text(f"short by {short:.4f}")
    page.get_by_role("button", name="Switch to it").click()
    expect(page.get_by_role("button", name="Switch by force")).to_be_visible()


def test_a_running_tuning_is_cancelled_after_a_question(page: Page, stocked: Service) -> None:
    start(page, "endless", {}, epochs=1000)
    expect(page.locator("#phase")).to_contain_text("tuning", timeout=FINISHED_MS)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the tuning").click()
    expect(page.locator(".log")).to_contain_text("cancelled", timeout=FINISHED_MS)
    assert "endless" not in [encoder.name for encoder in stocked.client.encoders()]


def test_what_the_service_refuses_is_told_at_the_field_and_nothing_typed_is_lost(page: Page, watched: Watched) -> None:
    watched.allowed = lambda error: "422" in error
    page.goto("/console/tuning?new=1")
    page.get_by_label("name", exact=True).fill("fine")
    page.get_by_label("epochs").fill("0")
    page.get_by_role("button", name="Start tuning").click()
    expect(page.locator("#start-problem")).to_contain_text("epochs")
    expect(page.get_by_label("epochs")).to_have_attribute("aria-invalid", "true")
    page.reload()
    expect(page.get_by_label("name", exact=True)).to_have_value("fine")
    expect(page.get_by_label("epochs")).to_have_value("0")


def test_a_page_that_is_behind_switches_nothing(page: Page, watched: Watched, stocked: Service) -> None:
    watched.allowed = lambda error: "412" in error
    page.goto("/console/encoders/spare%401")
    button = page.get_by_role("button", name="Switch to it")
    button.wait_for()
    now = stocked.client.active_encoder().encoder.name
    stocked.client.activate("near" if now == "base" else "base")  # somebody else
    generation = stocked.client.active_encoder().encoder.generation
    button.click()
    page.get_by_role("dialog").get_by_role("button", name="Switch").click()
    expect(page.get_by_text("Somebody else switched meanwhile")).to_be_visible()
    assert stocked.client.active_encoder().encoder.generation == generation


def test_an_encoder_is_deleted_only_after_it_was_said_what_that_means(page: Page, stocked: Service) -> None:
    folder = stocked.settings.source_dirs[0] / "spare"
    stocked.client.register_encoder("doomed", path=str(folder), force=True)
    page.goto("/console/encoders/doomed%401")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("removed for good")
    dialog.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/console/encoders")
    assert "doomed" not in [encoder.name for encoder in stocked.client.encoders()]


def test_an_encoder_that_somebody_deletes_while_its_page_is_open_is_told_so(
    page: Page, watched: Watched, stocked: Service
) -> None:
    watched.allowed = lambda error: "404" in error or "409" in error
    folder = stocked.settings.source_dirs[0] / "spare"
    stocked.client.register_encoder("fleeting", path=str(folder), force=True)
    page.goto("/console/encoders/fleeting%401")
    button = page.get_by_role("button", name="Switch to it")
    button.wait_for()
    page.goto(f"/?q={stock.QUERY}")
    page.locator("#encoder").select_option("fleeting@1")
    expect(page.locator(".hit")).to_have_count(10)
    page.go_back()
    page.go_back()
    button.wait_for()
    generation = stocked.client.active_encoder().encoder.generation
    stocked.client.delete_encoder("fleeting@1")  # somebody else
    button.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Switch").click()
    expect(dialog).to_contain_text("fleeting@1 was deleted and cannot become active")
    assert stocked.client.active_encoder().encoder.generation == generation
    page.goto(f"/?q={stock.QUERY}&encoder=fleeting%401")
    expect(page.locator("main")).to_contain_text("fleeting@1")
    expect(page.locator(".hit")).to_have_count(0)


def test_an_interrupted_tuning_is_resumed_from_its_page_and_a_failed_one_says_why(
    service: Service, tiny: Path, opened: Callable[[Service], Watched]
) -> None:
    stock.fill(service, tiny, service.settings.source_dirs[0])
    jobs = service.parts.registry.jobs
    broken, job = (
        service.client.create_tuning_job(name, "pumps", guards=["pumps:de"], recipe=stock.RECIPE, gate=stock.OPEN_GATE)
        for name in ("broken", "resumed")
    )
    for each, ending in ((broken, JobStatus.FAILED), (job, None)):
        wait_until(lambda each=each: jobs.find(each.id).status is JobStatus.PREPARED)  # type: ignore[misc]
        claimed = jobs.claim("lost/1")
        assert claimed is not None
        assert claimed.id == each.id
        if ending:
            jobs.move(each.id, ending, only_from=(JobStatus.RUNNING,), reason="the loss is no number: lower the rate")
    assert jobs.interrupt(worker="lost") == [job.id]

    page = opened(service).context().new_page()
    page.goto(f"/console/tuning/{broken.id}")
    expect(page.locator(".problem", has_text="the loss is no number")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_have_count(0)
    page.goto(f"/console/tuning/{job.id}")
    expect(page.locator(".problem", has_text="the trainer stopped before the job ended")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Resume")).to_have_count(0)
    with one_thread(), working(service.settings):
        expect(page.locator(".log")).to_contain_text("succeeded: resumed@1", timeout=FINISHED_MS)
    page.context.close()
