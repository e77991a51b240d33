"""OpenVINO beside ONNX Runtime: the same vectors in fp32, near ones in bf16, and a sentence for whatever cannot be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.encoders import engine as engines
from app.encoders.engine import Engine, Precision, chosen, load_engine
from app.encoders.files import EncoderFiles
from app.encoders.probes import LEAST_COSINE, PROBE_TEXTS, check_recorded, cosines
from app.encoders.session import SHARED
from app.encoders.spec import read_spec
from app.encoders.tensors import write_tensors
from app.encoders.torch_engine import TorchEngine
from app.errors import EncoderBroken
from tests.conftest import has_bf16, openvino_needed
from tests.encoders.conftest import TEXTS, Caches

if TYPE_CHECKING:
    from app.encoders.openvino_engine import OpenVinoEngine


def open_engine(
    files: EncoderFiles, caches: Caches, *, precision: Precision = "fp32", threads: int = 1, lanes: int = 1
) -> "OpenVinoEngine":
    caches.engine(files).close()  # the graph is there from now on
    loaded = load_engine(
        files,
        read_spec(files),
        kind="openvino",
        precision=precision,
        threads=threads,
        lanes=lanes,
        graphs_dir=caches.graphs,
        weights_dir=caches.weights,
    )
    from app.encoders.openvino_engine import OpenVinoEngine

    assert isinstance(loaded, OpenVinoEngine)
    return loaded


bf16_needed = pytest.mark.skipif(not has_bf16(), reason="this processor has no bf16")


@pytest.fixture
def onnx(tiny: EncoderFiles, caches: Caches) -> Iterator[Engine]:
    engine = caches.engine(tiny)
    yield engine
    engine.close()


@openvino_needed
def test_weights_on_a_file_system_of_another_machines_are_read_and_not_mapped(
    tiny: EncoderFiles, caches: Caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def maps() -> list[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return [line for line in lines if line.endswith("/weights.bin") and str(caches.weights) in line]

    engine = open_engine(tiny, caches)
    expected = engine.embed(TEXTS)
    assert maps()
    engine.close()
    del engine
    assert not maps()
    (tmp_path / "mounts").write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {caches.weights} nfs4 rw 0 0\n")
    monkeypatch.setattr("app.encoders.mounts.MOUNTS", tmp_path / "mounts")
    again = open_engine(tiny, caches)
    assert not maps()
    np.testing.assert_array_equal(again.embed(TEXTS), expected)
    again.close()


@openvino_needed
def test_fp32_equals_onnx_runtime_in_languages_lengths_and_mixed_batches(minilm: EncoderFiles, caches: Caches) -> None:
    expected, engine = caches.engine(minilm), open_engine(minilm, caches)
    together = engine.embed(TEXTS, "query: ")
    assert cosines(together, expected.embed(TEXTS, "query: ")).min() >= LEAST_COSINE["fp32"]
    np.testing.assert_allclose(together, expected.embed(TEXTS, "query: "), atol=1e-5)
    alone = np.concatenate([engine.embed([text], "query: ") for text in TEXTS])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert engine.embed([]).shape == (0, 384)
    assert engine.lengths(TEXTS) == expected.lengths(TEXTS)
    engine.close()


@openvino_needed
@bf16_needed
def test_bf16_is_near_fp32_and_is_not_fp32(minilm: EncoderFiles, caches: Caches) -> None:
    expected = caches.engine(minilm).embed(list(PROBE_TEXTS))
    engine = open_engine(minilm, caches, precision="bf16")
    lowest = check_recorded(engine.embed(list(PROBE_TEXTS)), expected, "bf16")
    engine.close()
    assert 0.999 <= lowest < 1 - 1e-6


def test_torch_in_bf16_is_near_fp32_too(minilm: EncoderFiles, caches: Caches) -> None:
    engine = TorchEngine(minilm, read_spec(minilm), precision="bf16")
    expected = caches.engine(minilm).embed(list(PROBE_TEXTS))
    assert 0.999 <= check_recorded(engine.embed(list(PROBE_TEXTS)), expected, "bf16") < 1 - 1e-6


@openvino_needed
def test_a_processor_without_bf16_is_told(tiny: EncoderFiles, caches: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.encoders import openvino_engine

    if has_bf16():  # where there is none, OpenVINO itself says so
        monkeypatch.setattr(openvino_engine.openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    before = len(SHARED)
    with pytest.raises(EncoderBroken, match=r"no bf16; set ADIABAT_PRECISION=fp32"):
        open_engine(tiny, caches, precision="bf16")
    assert len(SHARED) == before


@openvino_needed
@bf16_needed
def test_an_encoder_with_other_weights_is_refused_in_bf16_too(
    tiny: EncoderFiles, copied: Path, caches: Caches, onnx: Engine
) -> None:
    tensors = {name[1:]: np.array(tiny.tensor(name)) for name in tiny.all_names()}
    random = np.random.default_rng(3)
    tensors["encoder.layer.0.output.dense.weight"] += random.normal(
        0, 0.1, tensors["encoder.layer.0.output.dense.weight"].shape
    ).astype(np.float32)
    write_tensors(copied / "model.safetensors", tensors.items())
    recorded = onnx.embed(list(PROBE_TEXTS))
    whole, broken = (open_engine(files, caches, precision="bf16") for files in (tiny, EncoderFiles(copied)))
    assert check_recorded(whole.embed(list(PROBE_TEXTS)), recorded, "bf16") > 0.999
    with pytest.raises(EncoderBroken, match=r"In bf16 .* too far .* ADIABAT_PRECISION=fp32"):
        check_recorded(broken.embed(list(PROBE_TEXTS)), recorded, "bf16")
    with pytest.raises(EncoderBroken, match="does not reproduce"):
        check_recorded(broken.embed(list(PROBE_TEXTS)), recorded)


def test_onnx_runtime_refuses_bf16(tiny: EncoderFiles, caches: Caches, onnx: Engine) -> None:  # noqa: ARG001 - exports
    with pytest.raises(EncoderBroken, match=r"computes in fp32; for bf16 set ADIABAT_ENGINE=openvino"):
        load_engine(
            tiny,
            read_spec(tiny),
            kind="onnx",
            precision="bf16",
            threads=1,
            graphs_dir=caches.graphs,
            weights_dir=caches.weights,
        )


def test_where_openvino_is_missing_it_is_named_with_what_mends_it(
    tiny: EncoderFiles,
    caches: Caches,
    onnx: Engine,  # noqa: ARG001 - exports
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _name: None)
    with pytest.raises(EncoderBroken, match=r"pip install 'adiabat\[openvino\]', or set ADIABAT_ENGINE=onnx"):
        load_engine(
            tiny,
            read_spec(tiny),
            kind="openvino",
            threads=1,
            graphs_dir=caches.graphs,
            weights_dir=caches.weights,
        )


@pytest.mark.parametrize(
    ("kind", "precision", "gpu", "expected"),
    [
        ("auto", "fp32", False, "onnx"),
        ("auto", "bf16", False, "openvino"),
        ("auto", "fp32", True, "torch"),
        ("auto", "bf16", True, "torch"),
        ("openvino", "fp32", True, "openvino"),
        ("onnx", "bf16", True, "onnx"),
    ],
)
def test_auto_depends_on_the_gpu_and_on_the_precision(
    kind: str, precision: Precision, gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "has_gpu", lambda: gpu)
    assert chosen(kind, precision) == expected


@openvino_needed
def test_both_runtimes_share_one_table_and_the_last_to_close_frees_it(tiny: EncoderFiles, caches: Caches) -> None:
    before = len(SHARED)
    other, first, second = caches.engine(tiny), open_engine(tiny, caches), open_engine(tiny, caches)
    assert first.shared_bytes
    assert first.shared_bytes == second.shared_bytes == other.shared_bytes
    assert [*first._tables.values()] == [*second._tables.values()] == [*other._tables.values()]
    assert len(SHARED) == before + len(first.shared_bytes)
    expected = second.embed(TEXTS)
    other.close()
    first.close()
    assert len(SHARED) == before + len(second.shared_bytes)
    np.testing.assert_array_equal(second.embed(TEXTS), expected)
    second.close()
    assert len(SHARED) == before
    with pytest.raises(AttributeError):  # the runtime's copy is gone, and nothing can be run by mistake
        second.embed(["late"])


@openvino_needed
def test_four_threads_get_their_own_vectors_and_count_their_own_tokens(
    tiny: EncoderFiles, caches: Caches, onnx: Engine
) -> None:
    engine = open_engine(tiny, caches, threads=2, lanes=2)
    work = [[f"{n} water", f"pump {n * 7} " * (n % 5 + 1), "oil"][: n % 3 + 1] for n in range(200)]

    def embed(texts: list[str]) -> tuple[np.ndarray, int]:
        before = engine.tokens
        return engine.embed(texts), engine.tokens - before

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(embed, work))
    for texts, (vectors, tokens) in zip(work, found, strict=True):
        np.testing.assert_allclose(vectors, onnx.embed(texts), atol=1e-5)
        assert tokens == sum(engine.lengths(texts))
    engine.close()


@openvino_needed
def test_openvino_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    """Its import would make a folder `intel` at home, with an id, and send an event."""
    code = "import app.encoders.openvino_engine as engine; print(engine.openvino.__name__)"
    home = os.environ | {"HOME": str(tmp_path)}
    for variable in ("CI", "TF_BUILD", "JENKINS_URL"):  # where it would send nothing anyway
        home.pop(variable, None)
    ran = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert ran.stdout == "openvino\n"
    assert not (tmp_path / "intel").exists()
