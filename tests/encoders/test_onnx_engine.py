import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.encoders.engine import load_engine
from app.encoders.files import EncoderFiles, write_delta, write_full
from app.encoders.graph import map_table
from app.encoders.session import SHARED
from app.encoders.spec import read_spec
from app.encoders.tensors import write_tensors
from app.encoders.torch_engine import TorchEngine
from tests.encoders.conftest import TEXTS, Caches, reference
from tests.tiny import FAMILIES, Family, PoolingMode

POOLINGS: tuple[PoolingMode, ...] = ("mean", "cls", "max", "lasttoken")
PROMPTS = {"query": "query: ", "document": "passage: "}


def test_minilm_equals_sentence_transformers_in_languages_lengths_and_mixed_batches(
    minilm: EncoderFiles, caches: Caches
) -> None:
    engine, model = caches.engine(minilm), reference(minilm.own)
    together = engine.embed(TEXTS)
    np.testing.assert_allclose(together, model.encode(list(TEXTS)), atol=1e-5)
    alone = np.concatenate([engine.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert engine.embed([]).shape == (0, 384)


# Every family and every pooling once; the nightly run has every pair.
ONCE = {
    ("bert", "max"),
    ("distilbert", "mean"),
    ("xlm-roberta", "mean"),
    ("mpnet", "cls"),
    ("modernbert", "lasttoken"),
}


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        pytest.param(family, pooling, marks=() if (family, pooling) in ONCE else pytest.mark.nightly)
        for family in FAMILIES
        for pooling in POOLINGS
    ],
)
def test_every_family_and_pooling_equals_sentence_transformers_with_prompts(
    family: Family, pooling: PoolingMode, build: Callable[..., EncoderFiles], caches: Caches
) -> None:
    dense = 24 if family == "mpnet" else None
    layers = 2 if family == "modernbert" else 1  # two kinds of layers there
    files = build(
        family=family, pooling=pooling, dense=dense, layers=layers, normalize=pooling != "max", prompts=PROMPTS
    )
    engine, model, spec = caches.engine(files), reference(files.own), read_spec(files)
    queries, passages = engine.embed(TEXTS, spec.query_prompt), engine.embed(TEXTS, spec.passage_prompt)
    scale = float(np.abs(queries).max())
    np.testing.assert_allclose(queries, model.encode_query(list(TEXTS)), atol=1e-5 * max(1.0, scale))
    np.testing.assert_allclose(passages, model.encode_document(list(TEXTS)), atol=1e-5 * max(1.0, scale))
    assert np.abs(queries - passages).max() > 1e-3


def test_left_padding_is_honoured(build: Callable[..., EncoderFiles], caches: Caches) -> None:
    files = build(pooling="max", normalize=False, layers=1)
    config = files.own / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"padding_side": "left",', 1))
    assert read_spec(files).padding_side == "left"
    expected = reference(files.own).encode(list(TEXTS), batch_size=len(TEXTS))
    session = caches.engine(files)
    batch = session._tokenizer.encode(TEXTS)
    assert batch["attention_mask"][1, 0] == 0
    np.testing.assert_allclose(session._session.run(None, batch)[0], expected, atol=2e-5)


def test_one_graph_serves_other_weights_whichever_tensors_changed(
    tiny: EncoderFiles, copied: Path, caches: Caches
) -> None:
    caches.engine(tiny)
    graphs = sorted(caches.graphs.iterdir())
    random = np.random.default_rng(7)
    tensors = {name: random.normal(0, 0.3, tiny.shape(name)).astype(np.float32) for name in tiny.all_names()}
    write_tensors(copied / "model.safetensors", ((name[1:], array) for name, array in tensors.items()))
    changed = caches.engine(EncoderFiles(copied))
    vectors = changed.embed(TEXTS)
    np.testing.assert_allclose(vectors, reference(copied).encode(list(TEXTS)), atol=1e-5)
    assert np.abs(vectors - caches.engine(tiny).embed(TEXTS)).max() > 0.1
    assert sorted(caches.graphs.iterdir()) == graphs


def test_a_delta_shares_the_table_of_its_base_and_frees_it_last(
    tiny: EncoderFiles, copied: Path, caches: Caches, tmp_path: Path
) -> None:
    tensors = {name[1:]: np.array(tiny.tensor(name)) for name in tiny.all_names()}
    tensors["encoder.layer.0.output.dense.weight"] += 0.5
    write_tensors(copied / "model.safetensors", tensors.items())
    write_delta(tiny, EncoderFiles(copied), tmp_path / "delta")
    before = len(SHARED)
    delta = EncoderFiles(tmp_path / "delta", tiny)
    base_engine, engine = caches.engine(tiny), caches.engine(delta)
    shared = next(iter(engine._tables.values()))
    assert [*base_engine._tables.values()] == [shared]
    np.testing.assert_allclose(engine.embed(TEXTS), reference(copied).encode(list(TEXTS)), atol=1e-5)
    del shared
    base_engine.close()
    assert np.isfinite(engine.embed(["still here"])).all()
    engine.close()
    assert len(SHARED) == before


def maps_of(path: Path) -> list[str]:
    """The lines of this process's memory maps that are of that file, or of one that had its name."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]


def test_a_table_is_mapped_from_one_file_which_is_made_anew_where_it_is_damaged(
    tiny: EncoderFiles, tmp_path: Path
) -> None:
    array = tiny.tensor("/embeddings.word_embeddings.weight")
    path = tmp_path / "table.bin"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: map_table(array, path), range(8)))
    assert {line.split()[4] for line in maps_of(path)} == {str(path.stat().st_ino)}
    assert [*tmp_path.iterdir()] == [path]
    content = path.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-4], b""):
        path.unlink()
        path.write_bytes(damaged)
        again = map_table(array, path)
        np.testing.assert_array_equal(again, array)
        assert isinstance(again, np.memmap)
        assert path.read_bytes() == content
    for each in found:  # what is used stays what it was
        np.testing.assert_array_equal(each, array)
    in_memory = map_table(array, tmp_path / "nowhere" / "table.bin")
    np.testing.assert_array_equal(in_memory, array)
    assert not isinstance(in_memory, np.memmap)


def test_on_a_file_system_of_another_machines_a_table_is_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr("app.encoders.mounts.MOUNTS", tmp_path / "mounts")
    array = np.ones((3, 2), dtype=np.float32)
    found = map_table(array, tmp_path / "table.bin")
    np.testing.assert_array_equal(found, array)
    assert not isinstance(found, np.memmap)
    assert found is not array
    assert not (tmp_path / "table.bin").exists()


def test_layers_stay_in_their_file_where_that_is_asked_for_and_it_is_this_machines(
    tiny: EncoderFiles, caches: Caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vectors_and_maps(*, map_weights: bool) -> tuple[NDArray[np.float32], int]:
        engine = load_engine(
            tiny,
            read_spec(tiny),
            kind="onnx",
            threads=1,
            graphs_dir=caches.graphs,
            weights_dir=caches.weights,
            map_weights=map_weights,
        )
        found = engine.embed(TEXTS), sum(line.endswith("/weights.bin") for line in maps_of(caches.weights))
        engine.close()
        return found

    matrices = sum(len(tiny.shape(name)) == 2 for name in tiny.tensor_names()) - 3  # of three embeddings
    expected, vectors_alone = vectors_and_maps(map_weights=False)
    same, all_of_them = vectors_and_maps(map_weights=True)
    assert all_of_them == vectors_alone + matrices
    np.testing.assert_allclose(same, expected, atol=1e-6)
    (tmp_path / "mounts").write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {caches.weights} nfs4 rw 0 0\n")
    monkeypatch.setattr("app.encoders.mounts.MOUNTS", tmp_path / "mounts")
    same, elsewhere = vectors_and_maps(map_weights=True)
    assert elsewhere == vectors_alone
    np.testing.assert_array_equal(same, expected)


def test_the_torch_engine_gives_the_same_vectors_for_a_delta(
    tiny: EncoderFiles, copied: Path, caches: Caches, tmp_path: Path
) -> None:
    write_delta(tiny, EncoderFiles(copied), tmp_path / "delta")
    files = EncoderFiles(tmp_path / "delta", tiny)
    torch_engine = TorchEngine(files, read_spec(files))
    np.testing.assert_allclose(
        torch_engine.embed(TEXTS, "query: "), caches.engine(files).embed(TEXTS, "query: "), atol=1e-5
    )
    assert torch_engine.lengths(TEXTS) == caches.engine(files).lengths(TEXTS)
    assert torch_engine.embed([]).shape == (0, 32)


def test_the_serving_process_imports_neither_torch_nor_transformers(minilm: EncoderFiles, caches: Caches) -> None:
    caches.engine(minilm)
    script = f"""
import sys
from pathlib import Path
from app.encoders.dispatch import Dispatcher
from app.encoders.engine import load_engine
from app.encoders.files import EncoderFiles
from app.encoders.spec import read_spec
import app.encoders.onnx_engine
files = EncoderFiles(Path({str(minilm.own)!r}))
engine = load_engine(files, read_spec(files), kind="onnx", threads=1,
                     graphs_dir=Path({str(caches.graphs)!r}), weights_dir=Path({str(caches.weights)!r}))
print(Dispatcher(engine, max_waiting=8).submit(["hello"]).result().shape)
print(sorted({{"torch", "transformers", "sentence_transformers", "onnx"}} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[:2] == ["(1, 384)", "[]"]


def test_a_full_copy_of_a_delta_loads_in_sentence_transformers(
    tiny: EncoderFiles, copied: Path, tmp_path: Path
) -> None:
    write_delta(tiny, EncoderFiles(copied), tmp_path / "delta")
    write_full(EncoderFiles(tmp_path / "delta", tiny), tmp_path / "full")
    expected = reference(tiny.own).encode(list(TEXTS))
    np.testing.assert_array_equal(reference(tmp_path / "full").encode(list(TEXTS)), expected)
