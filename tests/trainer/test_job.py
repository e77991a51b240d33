"""A whole job in this process: a real registry, artifacts, halves, gate, and the encoder it registers."""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.encoders.admission import AdmissionRules, Registrar
from app.encoders.artifacts import ArtifactStore
from app.registry import EncoderState, EventKind, JobStatus, NewJob, Registry
from tests.trainer.conftest import QUERIES_A_PASSAGE
from trainer.heartbeat import Heartbeat
from trainer.job import Outcome, run_job
from trainer.workplace import Workplace

pytestmark = pytest.mark.slow

RECIPE = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "eval_every": 2}
DIGEST = "sha256:world"


class Trainer:
    """Jobs on `world` as dataset and as guard, one after the other."""

    def __init__(self, folder: Path, world: Path, base: Path, graphs: Path) -> None:
        self.folder = folder
        self.registry = Registry(folder / "registry.db")
        self.artifacts = ArtifactStore(folder / "artifacts")
        shutil.copytree(graphs, self.artifacts.graphs, dirs_exist_ok=True)
        rules = AdmissionRules(min_cosine=0.8, min_overlap=0.5, engine="onnx", threads=1)
        self.registrar = Registrar(self.artifacts, self.registry, rules, overlap=None)
        self.registrar.register_base(base, "tiny", None, None)
        dataset = self.artifacts.root / "datasets" / DIGEST.removeprefix("sha256:")
        shutil.copytree(world / "dataset", dataset)
        for split in ("dev", "test"):
            shutil.copy(dataset / "qrels" / "train.tsv", dataset / "qrels" / f"{split}.tsv")
        for name in ("world", "guard"):
            self.registry.datasets.put(name, DIGEST, {})
        (self.training_set,) = (world / "matrices").iterdir()

    def run(self, parent: str, recipe: dict[str, Any] = RECIPE, **gate: float) -> tuple[Outcome, list[dict[str, Any]]]:
        """The outcome and what was told as measured."""
        new = NewJob(
            name="bees",
            parent_id=self.registry.encoders.find(parent).id,
            dataset="world",
            guards=["guard"],
            dataset_digests={"world": DIGEST, "guard": DIGEST},
            recipe=recipe,
            gate=gate,
            activate="never",
        )
        job_id = self.registry.jobs.add(new).id
        self.registry.jobs.move(job_id, JobStatus.PREPARED, only_from=(JobStatus.QUEUED,))
        job = self.registry.jobs.claim("test")
        assert job is not None
        place = Workplace(
            registry=self.registry,
            artifacts=self.artifacts,
            registrar=self.registrar,
            heartbeat=Heartbeat(self.registry, "test", "test", threading.Event()),
            training_set=self.training_set,
            replay=self.folder / "replay.json",
            checkpoints=self.folder / job.id,
        )
        outcome = run_job(job, place)
        events = self.registry.events.after(job.id, 0, 100)
        return outcome, [event.data for event in events if event.kind is EventKind.MEASURED]


@pytest.fixture
def trainer(tmp_path: Path, world: Path, tiny_folder: Path, graphs: Path) -> Iterator[Trainer]:
    made = Trainer(tmp_path, world, tiny_folder, graphs)
    yield made
    made.registry.close()


def test_a_job_proves_on_one_half_what_it_chose_by_the_other_from_base_and_from_a_parent(trainer: Trainer) -> None:
    outcome, told = trainer.run("base@1", min_gain=-1, max_guard_loss=1, max_drift=2)
    result = outcome.result
    assert outcome.status is JobStatus.SUCCEEDED
    assert [(each["when"], each["half"]) for each in told] == [
        ("before", "choose"),
        ("before", "prove"),
        ("during", "choose"),
        ("during", "choose"),
        ("after", "choose"),
        ("after", "prove"),
    ]
    looked = told[2:4]
    assert [each["step"] for each in looked] == [look["step"] for look in result["looks"]] == [2, 4]
    assert [each["dev"] for each in looked] == [look["dev"] for look in result["looks"]]
    assert 0 < looked[0]["drift"]["guard"] == result["looks"][0]["drift"] < looked[1]["drift"]["guard"]
    assert told[0]["dev"] == result["choose"]["dev"]["before"] != result["dev"]["before"] == told[1]["dev"]
    assert told[4]["guards"]["guard"] == result["choose"]["guards"]["guard"]["after"]
    assert told[5]["guards"]["guard"] == result["guards"]["guard"]["after"]
    sizes = result["halves"]
    assert sizes["choose"]["dev"] + sizes["prove"]["dev"] == result["queries"]["dev"] == 24 * QUERIES_A_PASSAGE
    assert result["guards"]["guard"]["queries"] == sizes["prove"]["guard"]
    assert result["guards"]["guard"]["held"] is True
    assert 0 < result["guards"]["guard"]["drift"] < 2
    assert result["parent"]["dev"] == result["dev"]["before"]
    assert len(result["gate"]["reasons"]) == 3
    assert outcome.record.metrics["verdict"] == "; ".join(result["gate"]["reasons"])

    again, told = trainer.run("bees@1", min_gain=-1, max_guard_loss=0)
    assert (told[2]["when"], told[2]["half"]) == ("parent", "choose")
    assert told[3]["dev"] == again.result["parent"]["dev"] == result["dev"]["after"]
    assert again.result["dev"]["before"] == result["dev"]["before"]  # the base, whatever the parent is
    # A loss of nothing can be shown by no guard.
    assert again.result["guards"]["guard"]["held"] is False
    assert again.status is JobStatus.REJECTED
    assert trainer.registry.encoders.find("bees@2").state is EncoderState.REJECTED
    cards = [(trainer.artifacts.folder(f"bees@{version}") / "README.md").read_text() for version in (1, 2)]
    assert "| before | after |" in cards[0]
    dev, parents = again.result["dev"], again.result["parent"]
    assert "| before | parent | after |" in cards[1]
    assert f"| {dev['before']:.4f} | {parents['dev']:.4f} | {dev['after']:.4f} |" in cards[1]
    assert "The column *parent* is `bees@1`" in cards[1]


def test_what_is_left_to_auto_is_found_kept_and_told_by_the_card(trainer: Trainer) -> None:
    recipe = RECIPE | {"learning_rate": "auto", "epochs": "auto", "soften": "auto"}
    outcome, _ = trainer.run("base@1", recipe, min_gain=-1, max_guard_loss=1)
    chosen, trials = outcome.result["chosen"], outcome.result["search"]
    best = trials[-1]
    assert best["stage"] == "softening"
    assert all(best[name] == chosen[name] for name in chosen if name != "soften")
    point = next(point for point in best["points"] if point["soften"] == chosen["soften"])
    choose = outcome.result["choose"]["dev"]
    assert point["dev"] == pytest.approx(choose["after"] - choose["before"], abs=1e-6)
    assert trainer.artifacts.manifest(outcome.record.key).recipe == recipe | chosen

    folder = trainer.artifacts.folder(outcome.record.key)
    card = (folder / "README.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", card)
    assert sorted(shown) == [f"card/{name}.png" for name in ("changes", "loss", "rates", "softening")]
    assert sorted(str(path.relative_to(folder)) for path in folder.glob("card/*")) == sorted(shown)
    assert all((folder / picture).read_bytes().startswith(b"\x89PNG") for picture in shown)
    for name in ("dev", "guard"):
        figures = outcome.result[name] if name == "dev" else outcome.result["guards"][name]
        assert f"| {name} | {figures['queries']} | {figures['before']:.4f} | {figures['after']:.4f} |" in card
    assert all(reason in card for reason in outcome.result["gate"]["reasons"])
    assert f"{outcome.result['weights']['moved']:,} of" in card
    assert card.count("\n| rate |") == sum(len(trial["points"]) for trial in trials if trial["stage"] == "rate")
    assert trainer.registry.encoders.find("base@1").digest in card
