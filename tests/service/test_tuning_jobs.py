"""A tuning job from HTTP to an active encoder, with the real trainer in its own process."""

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from app.cli.datasets import zip_folder
from app.client import AdiabatClient, ApiError
from app.encoders.artifacts import ArtifactStore
from app.encoders.files import write_full
from app.encoders.probes import LEAST_COSINE, PROBE_TEXTS, cosines
from app.passages.disk import copy_tree
from app.settings import Settings
from app.wire.tuning_jobs import JobEventPublic
from tests.conftest import has_bf16, openvino_needed, process, trainer_of, wait_until

pytestmark = pytest.mark.slow

TOPICS = ("water pump", "heart valve", "oil filter", "night light", "engine repair", "sleep pain")
WORDS = ("cost", "leak", "pressure", "fire", "doctor", "treatment", "symptom", "light", "oil", "sleep")
GENTLE = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 16, "mined_negatives": 2}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset")


def write_dataset(folder: Path) -> Path:
    """Questions about `p0` … `p59`, which name two of a passage's words; 40 train, 10 dev, 10 test."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"q{n}", "text": question(n), "metadata": {"lang": "en"}} for n in range(60)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, numbers in (("train", range(40)), ("dev", range(40, 50)), ("test", range(50, 60))):
        (folder / "qrels" / f"{split}.tsv").write_text("".join(f"q{n}\tp{n}\t1\n" for n in numbers))
    return folder


def question(n: int) -> str:
    return f"how does my {TOPICS[n % 6]} {WORDS[n % 10]} for {n}"


def passages() -> list[dict[str, Any]]:
    pick = random.Random(3)
    return [
        {"id": f"p{n}", "text": f"the {TOPICS[n % 6]} and the {WORDS[n % 10]} {n} {' '.join(pick.sample(WORDS, 3))}"}
        for n in range(60)
    ]


@contextmanager
def ready(
    settings: Settings, dataset: Path, tmp_path: Path, *options: str, variables: dict[str, str] | None = None
) -> Iterator[tuple[Any, AdiabatClient]]:
    with process(settings, *options, variables=variables) as (child, client):
        client.upsert_passages(passages())
        client.put_dataset("pumps", zip_folder(dataset, tmp_path / "pumps.zip"))
        guard = tmp_path / "guard"
        shutil.copytree(dataset, guard)
        corpus = [{"_id": item["id"], "text": item["text"]} for item in passages()]
        (guard / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
        client.put_dataset("own-corpus", zip_folder(guard, tmp_path / "guard.zip"))
        yield child, client


@dataclass(frozen=True, kw_only=True)
class Site:
    """A service with its trainer; each test has names of its own."""

    settings: Settings
    child: Any
    client: AdiabatClient


@pytest.fixture(scope="module")
def site(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tunings")
    copy_tree(seeded, folder / "data")
    settings = Settings(data_dir=folder / "data", passage_encoder=str(tiny), source_dirs=(folder,), threads=1)
    with ready(settings, write_dataset(folder / "dataset"), folder) as (child, client):
        yield Site(settings=settings, child=child, client=client)


def test_a_job_makes_registers_and_activates_an_encoder_while_searches_go_on(site: Site, tmp_path: Path) -> None:
    settings, client = site.settings, site.client
    job = client.create_tuning_job(
        "pumps",
        "pumps",
        guards=["pumps", "own-corpus"],
        recipe=GENTLE,
        gate={"min_gain": -1, "max_guard_loss": 1},
        activate="if-gate-passes",
    )
    phases = set()
    done = client.wait_for_job(job.id, lambda seen: phases.add(seen.progress.get("phase")))
    assert done.status == "succeeded", done
    assert client.search("water pump").hits
    result = done.result
    assert set(result["guards"]) == {"pumps", "own-corpus"}
    # The guard with its own corpus has the same texts as the store: the two roads must agree.
    for when in ("before", "after"):
        assert result["guards"]["pumps"][when] == pytest.approx(result["guards"]["own-corpus"][when], abs=1e-6)
    assert result["choose"]["dev"] != {when: result["dev"][when] for when in ("before", "after")}
    assert result["queries"] == {"dev": 10, "pumps": 10, "own-corpus": 10}
    halves = result["halves"]
    assert halves["choose"] == halves["prove"] == {"dev": 5, "pumps": 5, "own-corpus": 5}
    assert result["guards"]["pumps"]["queries"] == 5
    assert result["guards"]["pumps"]["languages"]["en"]["queries"] == 5
    assert result["guards"]["pumps"]["held"] is True
    assert result["guards"]["pumps"]["drift"] > 0
    assert result["parent"]["dev"] == result["dev"]["before"]
    assert result["pairs"] == 40
    assert result["weights"]["moved"] > 0
    wait_until(lambda: client.active_encoder().encoder.name == "pumps")
    assert client.history()[0].reason == "job"

    made = client.encoder("pumps@1")
    assert made.admission == "verified"
    assert made.lineage.base == client.encoder("base@1").digest
    assert made.metrics["dev"] == result["dev"]
    assert client.register_encoder("pumps", job=job.id).version == 1
    assert client.register_encoder("second-name", job=job.id).digest == made.digest
    wait_until(lambda: not (settings.jobs_dir / job.id).exists())
    assert_told(list(client.job_events(job.id)), result)
    assert_same_as_plain_sentence_transformers(settings, client, tmp_path)


def assert_told(events: list[JobEventPublic], result: dict[str, Any]) -> None:
    statuses = [event.data["status"] for event in events if event.kind in ("status", "end")]
    assert statuses == ["queued", "preparing", "queued", "running", "evaluating", "succeeded"]
    told = {(event.data["half"], event.data["when"]): event.data for event in events if event.kind == "measured"}
    assert len(told) == 4
    for half, figures in (("choose", result["choose"]), ("prove", result)):
        for when in ("before", "after"):
            assert told[half, when]["dev"] == figures["dev"][when]
            assert told[half, when]["guards"] == {name: each[when] for name, each in figures["guards"].items()}
    assert events[-1].kind == "end"
    assert events[-1].data == {"status": "succeeded", "encoder": "pumps@1"}


def assert_same_as_plain_sentence_transformers(settings: Settings, client: AdiabatClient, tmp_path: Path) -> None:
    """The vector that serves is the one any sentence-transformers user gets from the exported folder."""
    write_full(ArtifactStore(settings.artifacts_dir).files("pumps@1"), tmp_path / "exported")
    expected = SentenceTransformer(str(tmp_path / "exported")).encode(["oil filter leak"], prompt_name="query")[0]
    served = client.search("oil filter leak", encoder="pumps", with_query_vector=True).query_vector
    assert served == pytest.approx(expected.tolist(), abs=1e-5)


@openvino_needed
@pytest.mark.nightly
def test_a_job_beside_a_service_in_bf16_measures_and_records_in_fp32(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    precision = "bf16" if has_bf16() else "fp32"
    engine = {"ADIABAT_ENGINE": "openvino", "ADIABAT_PRECISION": precision}
    with ready(settings, dataset, tmp_path, variables=engine) as (_, client):
        job = client.create_tuning_job(
            "pumps", "pumps", recipe=GENTLE | {"epochs": 1}, gate={"min_gain": -1}, activate="if-gate-passes"
        )
        done = client.wait_for_job(job.id)
        assert done.status == "succeeded", done
        wait_until(lambda: client.active_encoder().encoder.name == "pumps")
        assert client.search("water pump").encoder.name == "pumps"
    artifacts = ArtifactStore(settings.artifacts_dir)
    write_full(artifacts.files("pumps@1"), tmp_path / "whole")
    exact = SentenceTransformer(str(tmp_path / "whole"), device="cpu").encode_query(list(PROBE_TEXTS))
    assert cosines(exact, artifacts.probe_vectors("pumps@1")).min() >= LEAST_COSINE["fp32"]
    if precision == "bf16":
        said = (settings.data_dir.parent / "service.log").read_text()
        assert "pumps@1 runs on openvino in bf16" in said


def test_a_job_whose_gate_says_no_registers_an_encoder_that_only_force_activates(site: Site) -> None:
    client = site.client
    job = client.create_tuning_job(
        "refused", "pumps", recipe=GENTLE | {"seed": 1}, gate={"min_gain": 0.99}, activate="if-gate-passes"
    )
    done = client.wait_for_job(job.id)
    assert done.status == "rejected"
    assert "dev MRR@10" in done.reason
    assert client.encoder("refused@1").state == "rejected"
    with pytest.raises(ApiError, match="force=true") as caught:
        client.activate("refused@1")
    assert caught.value.status == 409
    copied = client.register_encoder("by-another-name", job=job.id)
    assert copied.state == "rejected"  # the verdict stays with the weights
    assert client.activate("refused@1", force=True).encoder.name == "refused"
    assert client.history()[0].forced is True


def test_cancel_stops_a_running_job_and_leaves_no_encoder(site: Site) -> None:
    client = site.client
    job = client.create_tuning_job("cancelled", "pumps", recipe=GENTLE | {"epochs": 1000})
    wait_until(lambda: client.tuning_job(job.id).progress.get("step", 0) > 0)
    client.cancel_tuning_job(job.id)
    assert client.wait_for_job(job.id).status == "cancelled"
    assert "cancelled" not in {item.name for item in client.encoders()}
    with pytest.raises(ApiError, match="already ended"):
        client.cancel_tuning_job(job.id)


def test_a_job_whose_trainer_is_killed_is_interrupted_can_be_given_up_and_the_next_one_runs(site: Site) -> None:
    settings, client = site.settings, site.client
    job = client.create_tuning_job("killed", "pumps", recipe=GENTLE | {"epochs": 1000})
    wait_until(lambda: client.tuning_job(job.id).progress.get("step", 0) > 0)
    os.kill(trainer_of(site.child.pid), signal.SIGKILL)
    ended = client.wait_for_job(job.id)
    assert (ended.status, ended.encoder) == ("interrupted", None)
    assert "resume" in (ended.reason or "")
    following = client.create_tuning_job("following", "pumps", recipe=GENTLE, gate={"min_gain": -1})
    assert client.wait_for_job(following.id).status == "succeeded"
    wait_until(lambda: [folder.name for folder in settings.jobs_dir.iterdir()] == [job.id])
    assert client.cancel_tuning_job(job.id).status == "cancelled"
    wait_until(lambda: not any(settings.jobs_dir.iterdir()))  # no training set is left behind


def test_a_job_whose_trainer_was_stopped_goes_on_and_makes_the_encoder_of_an_unbroken_one(site: Site) -> None:
    recipe, gate = GENTLE | {"epochs": 40}, {"min_gain": -1}
    settings, client = site.settings, site.client
    unbroken = client.create_tuning_job("unbroken", "pumps", recipe=recipe, gate=gate)
    assert client.wait_for_job(unbroken.id).status == "succeeded"
    job = client.create_tuning_job("broken", "pumps", recipe=recipe, gate=gate)
    wait_until(lambda: client.tuning_job(job.id).progress.get("step", 0) > 0)
    os.kill(trainer_of(site.child.pid), signal.SIGTERM)
    assert client.wait_for_job(job.id).status == "interrupted"
    client.resume_tuning_job(job.id)
    assert client.wait_for_job(job.id).status == "succeeded"
    sentences = [event.data["message"] for event in client.job_events(job.id) if event.kind == "log"]
    assert any(sentence.startswith("going on from the checkpoint after step") for sentence in sentences)
    assert client.encoder("broken").digest == client.encoder("unbroken").digest
    wait_until(lambda: not any(settings.jobs_dir.iterdir()))


def test_a_job_that_cannot_be_done_fails_with_one_sentence(site: Site) -> None:
    client, active = site.client, site.client.active_encoder().encoder
    client.delete_passages([f"p{n}" for n in range(20)])
    job = client.create_tuning_job("few", "pumps", recipe=GENTLE)
    done = client.wait_for_job(job.id)
    assert done.status == "failed"
    assert "20 pairs" in done.reason
    client.upsert_passages(passages())
    nothing_moves = client.create_tuning_job("frozen", "pumps", recipe=GENTLE | {"freeze": ["*"]})
    assert client.wait_for_job(nothing_moves.id).status == "failed"
    assert client.active_encoder().encoder == active
    assert client.search("water").encoder == active
