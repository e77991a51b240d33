"""Files dropped on the page, browsing, deleting; evaluations as files."""

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.e2e import stock


def test_a_file_of_passages_is_taken_in_and_its_bad_lines_are_told(
    page: Page, stocked: Service, tmp_path: Path
) -> None:
    file = tmp_path / "more.jsonl"
    lines = [
        json.dumps({"id": f"more-{n}", "text": f"the oil filter {n}", "metadata": {"lang": "xx"}}) for n in range(70)
    ]
    file.write_text("\n".join([*lines[:66], "{not json", *lines[66:]]))
    page.goto("/console/data")
    page.get_by_label("Files").set_input_files(file)
    expect(page.get_by_role("status").filter(has_text="70 passages embedded")).to_be_visible()
    page.get_by_text("1 lines are no passage").click()
    expect(page.get_by_text("line 67")).to_be_visible()
    assert stocked.client.count_passages({"must": [{"key": "lang", "match": {"value": "xx"}}]}) == 70
    stocked.client.delete_passages(filter={"must": [{"key": "lang", "match": {"value": "xx"}}]})


def test_a_dataset_is_stored_under_a_name_and_deleted_again(page: Page, stocked: Service, tmp_path: Path) -> None:
    file = tmp_path / "My Questions.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in stock.questions()[:12]))
    page.goto("/console/data")
    page.get_by_label("Files").set_input_files(file)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name of the dataset")).to_have_value("my-questions")
    dialog.get_by_role("button", name="Store").click()
    expect(page.get_by_text("my-questions: 12 questions")).to_be_visible()
    page.get_by_role("button", name="Delete the dataset my-questions").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Delete the dataset my-questions")).to_be_hidden()
    assert [dataset.name for dataset in stocked.client.datasets()] == ["pumps"]


def test_the_dataset_that_the_service_keeps_leads_to_its_judgments_and_is_not_deleted(
    page: Page, stocked: Service
) -> None:
    judged = stocked.client.judge("a question of nobody", "p1", 1)
    page.goto("/console/data")
    page.get_by_role("link", name="See them").click()
    expect(page.get_by_role("link", name="a question of nobody")).to_be_visible()
    stocked.client.delete_judgment(judged.id)
