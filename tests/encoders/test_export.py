import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from transformers import AutoConfig, AutoModel

from app.encoders.export import export_graph, graph_key
from app.encoders.export_torch import Chain, _by_content, _prove, _randomise, build_graph
from app.encoders.files import EncoderFiles, write_delta
from app.encoders.graph import ALIGNMENT, GRAPH, MAP, WEIGHTS, GraphMap, write_weights
from app.encoders.onnx_engine import OnnxEngine
from app.encoders.spec import read_spec
from app.errors import EncoderBroken
from tests.encoders.conftest import TEXTS, Caches, reference


def test_a_child_exports_once_and_the_next_finds_the_graph(tiny: EncoderFiles, tmp_path: Path) -> None:
    spec = read_spec(tiny)
    folder = export_graph(tiny, spec, tmp_path / "graphs")
    made = (folder / GRAPH).stat().st_mtime_ns
    # A timeout that no child could meet: there is no child any more.
    assert export_graph(tiny, spec, tmp_path / "graphs", timeout_s=0.001) == folder
    assert (folder / GRAPH).stat().st_mtime_ns == made
    assert [path.name for path in (tmp_path / "graphs").iterdir()] == [folder.name]
    engine = OnnxEngine(tiny, spec, graph=folder, weights_dir=tmp_path / "weights", threads=1)
    np.testing.assert_allclose(engine.embed(TEXTS), reference(tiny.own).encode(list(TEXTS)), atol=1e-5)


def test_a_child_that_fails_says_why_and_leaves_nothing(copied: Path, tmp_path: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    files = EncoderFiles(copied)
    with pytest.raises(EncoderBroken, match=r"do not fit: /encoder\.layer\.1"):
        export_graph(files, read_spec(files), tmp_path / "graphs")
    assert list((tmp_path / "graphs").iterdir()) == []


def test_a_child_that_takes_too_long_is_ended(tiny: EncoderFiles, tmp_path: Path) -> None:
    with pytest.raises(EncoderBroken, match="did not end within"):
        export_graph(tiny, read_spec(tiny), tmp_path / "graphs", timeout_s=0.05)
    assert list((tmp_path / "graphs").iterdir()) == []


def test_the_key_depends_on_the_computation_and_not_on_weights_or_prompts(
    tiny: EncoderFiles, copied: Path, tmp_path: Path
) -> None:
    key = graph_key(tiny, read_spec(tiny))
    write_delta(tiny, EncoderFiles(copied), tmp_path / "delta")
    delta = EncoderFiles(tmp_path / "delta", tiny)
    assert graph_key(delta, read_spec(delta)) == key
    pooling = copied / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("mean", "cls"))
    assert graph_key(EncoderFiles(copied), read_spec(EncoderFiles(copied))) != key


def test_every_parameter_has_one_place_in_the_file_and_the_graph_holds_none(tiny: EncoderFiles, caches: Caches) -> None:
    caches.engine(tiny)
    folder = caches.graphs / graph_key(tiny, read_spec(tiny))[:32]
    graph = GraphMap.read(folder / MAP)
    assert sorted(place.name for place in graph.placements) == list(tiny.tensor_names())
    assert len({place.initializer for place in graph.placements}) == len(graph.placements)
    assert [p.name for p in graph.placements if p.table] == ["/embeddings.word_embeddings.weight"]
    assert any(place.transpose for place in graph.placements)
    spans = sorted((p.offset, p.offset + p.nbytes) for p in graph.placements if not p.table)
    assert all(start % ALIGNMENT == 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    model = onnx.load(folder / GRAPH, load_external_data=False)
    inside = [i for i in model.graph.initializer if i.data_location != onnx.TensorProto.EXTERNAL]
    floats = [i for i in inside if i.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(i.dims)) for i in floats) == 1
    said = (folder / GRAPH).read_bytes()
    assert b"site-packages" not in said
    assert str(Path.cwd()).encode() not in said


def test_a_graph_that_ignores_a_replaced_tensor_does_not_pass_the_proof(tiny: EncoderFiles, tmp_path: Path) -> None:
    """What the proof is for: a weight that the exporter baked in keeps its old value whatever is written."""
    spec = read_spec(tiny)
    build_graph(tiny, spec, "key", tmp_path / "graph")
    graph = GraphMap.read(tmp_path / "graph" / MAP)
    baked = next(place for place in graph.placements if place.name.endswith("layer.0.output.dense.weight"))
    model = onnx.load(tmp_path / "graph" / GRAPH, load_external_data=False)
    index = next(i for i, init in enumerate(model.graph.initializer) if init.name == baked.initializer)
    array = tiny.tensor(baked.name)
    model.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array.T.copy(), baked.initializer))
    (tmp_path / "graph" / GRAPH).write_bytes(model.SerializeToString())
    chain = Chain(AutoModel.from_config(AutoConfig.from_pretrained(tiny.path("config.json"))), spec).eval()
    parameters = dict(chain.parameters_by_name())
    _randomise(parameters)
    with pytest.raises(EncoderBroken, match="off by"):
        _prove(chain, spec, parameters, graph, tmp_path / "graph")


def test_two_parameters_with_one_content_cannot_be_placed() -> None:
    value = onnx_ir.Value(name="w", const_value=onnx_ir.tensor(np.ones((2, 3), np.float32)))
    model = onnx_ir.Model(onnx_ir.Graph([], [], nodes=[], initializers=[value]), ir_version=10)
    same = torch.nn.Parameter(torch.ones(2, 3))
    assert _by_content(model, {"a": same}) == {"a": ("w", False)}
    with pytest.raises(EncoderBroken, match="put two parameters into one"):
        _by_content(model, {"a": same, "b": same})
    with pytest.raises(EncoderBroken, match="in 0 places"):
        _by_content(model, {"a": torch.nn.Parameter(torch.zeros(2, 3))})


def test_half_written_weights_are_never_used(tiny: EncoderFiles, caches: Caches, tmp_path: Path) -> None:
    caches.engine(tiny)
    graph = GraphMap.read(caches.graphs / graph_key(tiny, read_spec(tiny))[:32] / MAP)
    path = write_weights(graph, tiny.tensor, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert write_weights(graph, tiny.tensor, tmp_path).read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == [WEIGHTS]


def test_a_damaged_map_is_an_error_that_says_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / MAP).write_text('{"key": "x", "placements": [{}]}')
    with pytest.raises(EncoderBroken, match="remove its folder"):
        GraphMap.read(tmp_path / MAP)
