"""`adiabat evaluate` against a real service, with the trainer's worker in a thread of the test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.evaluating import beside_each_other, draw
from app.registry import JobStatus
from app.wire.evaluations import EvaluationResult
from tests.conftest import Service, wait_until
from tests.service.evaluations import stock, working
from tests.service.test_cli import adiabat


@pytest.fixture
def stocked(service: Service, tiny: Path, sources: Path, tmp_path: Path) -> Service:
    return stock(service, tiny, sources, tmp_path)


def figures(change: float, p: float) -> dict[str, object]:
    difference = {"change": change, "low": change - 0.01, "high": change + 0.01, "p": p}
    return {"queries": 40, "mrr": 0.5 + change, "ndcg": 0.5, "recall_10": 0.6, "recall_100": 0.9, "triplets": 0.95} | (
        {"difference": difference} if change else {}
    )


def result() -> EvaluationResult:
    """Two encoders; of the second's two figures on `d:test`, only the German one is significant."""

    def cell(change: float, p_holm: float) -> dict[str, object]:
        whole = figures(change, 0.03)
        if change:
            whole["difference"] = whole["difference"] | {"p_holm": p_holm}  # type: ignore[operator]
        return whole | {"languages": {"de": figures(2 * change, 0.001), "en": figures(0.5 * change, 0.5)}}

    described = {
        "queries": 40,
        "passages": 9,
        "own_corpus": False,
        "missing": {"judgments": 0, "ids": [], "queries": 0},
    }
    return EvaluationResult.model_validate(
        {
            "datasets": {"d:test": described},
            "matrix": {"base@1": {"d:test": cell(0.0, 1.0)}, "bees@2": {"d:test": cell(0.06, 0.06)}},
        }
    )


@pytest.mark.slow
def test_an_evaluation_is_followed_to_a_table_json_and_a_picture(stocked: Service, tmp_path: Path) -> None:
    stocked.client.delete_passages(["p0", "p1"])
    picture = tmp_path / "matrix.svg"
    named = ("--encoder", "near", "--dataset", "pumps", "--dataset", "own:test", "--picture", str(picture))
    with working(stocked.settings):
        said = adiabat(stocked, "evaluate", *named)
    (listed,) = stocked.client.evaluations()
    assert (listed.status, listed.result) == ("succeeded", None)  # a list tells no results
    made = stocked.client.evaluation(listed.id)
    assert made.result is not None
    near = made.result.matrix["near@1"]["pumps:test"]
    assert near.difference is not None
    for expected in (
        f"evaluation {made.id}: succeeded",
        "28 queries",
        f"{near.mrr:.4f}",
        f"{near.difference.change:+.4f}",
        f"{near.difference.low:+.4f} to {near.difference.high:+.4f}",
        "pumps:test: 3 judgments name passages that are not there (p0, p1 …); 2 queries had no other and are left out",
    ):
        assert expected in said
    svg = picture.read_text()
    assert ">near@1<" in svg
    assert f">{near.mrr:.3f}<" in svg
    again = json.loads(adiabat(stocked, "evaluate", "--id", made.id, "--json"))
    assert again == json.loads(made.model_dump_json(exclude_none=True))


def test_what_is_not_asked_well_makes_no_evaluation(stocked: Service, tmp_path: Path) -> None:
    said = "--dataset, --replay or --mteb, or an earlier evaluation with --id"
    assert said in adiabat(stocked, "evaluate", code=1)
    both = ("--dataset", "pumps", "--id", "abc")
    assert said in adiabat(stocked, "evaluate", *both, code=1)
    kept = ("--id", "abc", "--encoder", "near")
    assert "--encoder goes with --dataset" in adiabat(stocked, "evaluate", *kept, code=1)
    jpeg = ("--dataset", "pumps", "--picture", str(tmp_path / "m.jpg"))
    assert ".png or .svg, not as 'm.jpg'" in adiabat(stocked, "evaluate", *jpeg, code=1)
    assert "[dataset-not-found]" in adiabat(stocked, "evaluate", "--dataset", "wasps", code=1)
    assert "[evaluation-not-found]" in adiabat(stocked, "evaluate", "--id", "0" * 32, code=1)
    assert stocked.client.evaluations() == []


def test_one_that_failed_is_shown_with_its_reason_and_ends_with_1(stocked: Service) -> None:
    jobs, made = stocked.parts.registry.jobs, stocked.client.create_evaluation(["pumps"]).id
    wait_until(lambda: jobs.evaluation(made).status is JobStatus.PREPARED)
    jobs.move(made, JobStatus.FAILED, only_from=(JobStatus.PREPARED,), reason="no light")
    said = adiabat(stocked, "evaluate", "--id", made, code=1, error=False)
    assert said.splitlines() == [f"evaluation {made}: failed", "  no light"]


@pytest.mark.slow
def test_an_interrupted_one_is_taken_up_again(stocked: Service) -> None:
    jobs, made = stocked.parts.registry.jobs, stocked.client.create_evaluation(["pumps"]).id
    wait_until(lambda: jobs.evaluation(made).status is JobStatus.PREPARED)
    assert jobs.claim("test") is not None
    jobs.interrupt(worker="test")
    with working(stocked.settings):
        assert f"evaluation {made}: succeeded" in adiabat(stocked, "evaluate", "--id", made)


def test_languages_have_columns_and_stars_by_their_own_p(tmp_path: Path) -> None:
    draw(result(), tmp_path / "m.svg")
    svg = (tmp_path / "m.svg").read_text()
    for said in ("+0.060", "+0.120*", "+0.030", "de", "en"):
        assert f">{said}<" in svg, said
    assert "+0.060*" not in svg  # its p is under 0.05, but not after Holm


@pytest.mark.parametrize(("room", "parts"), [(60, [3, 1]), (40, [2, 1, 1]), (1, [1, 1, 1, 1])])
def test_as_many_columns_stand_beside_each_other_as_there_is_room_for(room: int, parts: list[int]) -> None:
    columns = [("d:test", ""), ("d:test", "de"), ("d:test", "en"), ("a-name-of-thirty-characters:dev", "")]
    held = list(beside_each_other(columns, room))
    assert [len(each) for each in held] == parts
    assert [column for each in held for column in each] == columns


def test_mteb_goes_alone_and_says_what_to_install(service: Service) -> None:
    assert "--mteb goes with --encoder and --json alone" in adiabat(
        service, "evaluate", "--mteb", "NFCorpus", "--dataset", "pumps", code=1
    )
    code = "import sys; sys.modules['mteb'] = None; from app.cli import main; main()"
    command = [sys.executable, "-c", code, "evaluate", "--mteb", "NFCorpus", "--url", service.url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "adiabat: To measure on tasks of MTEB, install it: pip install 'adiabat[mteb]'.\n"
