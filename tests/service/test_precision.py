"""A service on OpenVINO, in bf16 where the processor has it: it ingests, searches and switches as any other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.encoders.probes import LEAST_COSINE, PROBE_TEXTS, cosines
from app.settings import Settings
from tests.conftest import has_bf16, openvino_needed, running
from tests.service import encoders
from tests.service.evaluations import passages
from tests.service.test_process import start_and_fail

PRECISION = "bf16" if has_bf16() else "fp32"
QUERIES = [f"how does my water pump {n} cost light and sleep {n * 7}" for n in range(120)]


@openvino_needed
@pytest.mark.parametrize("settings", [{"engine": "openvino", "precision": PRECISION, "threads": 2}], indirect=True)
def test_openvino_ingests_and_every_answer_is_by_the_encoder_that_it_names(
    settings: Settings, tiny: Path, sources: Path
) -> None:
    tuned = encoders.near(tiny, sources / "tuned", scale=0.1)
    folders = {"base": tiny, "tuned": tuned}
    models = {name: SentenceTransformer(str(folder), device="cpu") for name, folder in folders.items()}
    with running(settings) as service:
        client, parts = service.client, service.parts
        client.upsert_passages(passages())
        ids, texts = [each["id"] for each in passages()], [each["text"] for each in passages()]
        found = parts.store.fetch(ids, with_vectors=True)
        stored = np.stack([one.vector for one in found if one.vector is not None])
        lowest = cosines(stored, models["base"].encode_document(texts)).min()
        assert lowest >= LEAST_COSINE[PRECISION]
        assert PRECISION == "fp32" or lowest < 1 - 1e-6  # or nothing was computed in bf16

        client.register_encoder("tuned", path=str(tuned), force=True)
        assert parts.slot.current.encoder.dispatcher.engine_name == "openvino"
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda query: client.search(query, limit=1), QUERIES)
            for name in ("tuned", "base", "tuned"):
                client.activate(name)
            seen = list(answers)
        seen.append(client.search(QUERIES[0], limit=1))
        assert seen[-1].encoder.name == "tuned"
        scores = {name: model.encode_query(QUERIES) @ stored.T for name, model in models.items()}
        for row, answer in zip([*range(len(QUERIES)), 0], seen, strict=True):
            [hit], named = answer.hits, answer.encoder.name
            off = {name: abs(hit.score - each[row, ids.index(hit.id)]) for name, each in scores.items()}
            assert off.pop(named) < 0.02 < 2 * off.popitem()[1], (row, answer)
        recorded = parts.artifacts.probe_vectors("tuned@1")
        exact = models["tuned"].encode_query(list(PROBE_TEXTS))
        assert cosines(recorded, exact).min() >= LEAST_COSINE["fp32"]  # whatever the service runs in


def test_bf16_on_onnx_runtime_ends_the_start_with_one_sentence(settings: Settings) -> None:
    said = start_and_fail(settings, ADIABAT_ENGINE="onnx", ADIABAT_PRECISION="bf16")
    assert "for bf16 set ADIABAT_ENGINE=openvino" in said


def test_weights_are_mapped_by_onnx_runtime_alone(settings: Settings) -> None:
    said = start_and_fail(settings, ADIABAT_MAP_WEIGHTS="1", ADIABAT_ENGINE="openvino")
    assert "The settings do not fit together: ADIABAT_MAP_WEIGHTS=1 is for ONNX Runtime in fp32: set ADIABAT_E" in said
