"""Inside the export child: torch builds the encoder's computation, onnx keeps it, a proof compares the two.

No weight of the encoder is read. The export runs on random values, so that each initialiser of the graph can be
told from every other by its content; the proof replaces all of them by other random values.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from app.encoders.files import fsync_tree
from app.encoders.graph import ALIGNMENT, GRAPH, MAP, WEIGHTS, GraphMap, Placement, write_sums, write_weights
from app.encoders.overlay import EncoderFiles, canonical
from app.encoders.session import OUTPUT, SharedTensors, open_session, shared_tables
from app.encoders.spec import DenseLayer, EncoderSpec
from app.errors import EncoderBroken

OPSET = 23  # the first with Attention and a plain Gelu, which the runtime has kernels for
TOLERANCE = 1e-5
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}
# (batch, length) of the proof; lengths within a batch are mixed
_PROOF_SHAPES = ((1, 1), (1, 9), (5, 3), (4, 40), (3, 100))


class _Dense(nn.Module):
    def __init__(self, layer: DenseLayer) -> None:
        super().__init__()
        self.linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        self.activation = _ACTIVATIONS[layer.activation]()

    def forward(self, vectors: Tensor) -> Tensor:
        return self.activation(self.linear(vectors))  # type: ignore[no-any-return]


class Chain(nn.Module):
    """Transformer, pooling, dense layers and normalisation as one computation."""

    def __init__(self, transformer: nn.Module, spec: EncoderSpec) -> None:
        super().__init__()
        self.transformer = transformer
        self.dense = nn.ModuleList(_Dense(layer) for layer in spec.dense)
        self._pooling = spec.pooling
        self._normalize = spec.normalize
        self._model_type = spec.model_type

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(batch, length) int64 each -> (batch, dim) fp32."""
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self._model_type in ("roberta", "xlm-roberta"):
            more = {"token_type_ids": torch.zeros_like(input_ids)}
        if self._model_type == "modernbert":  # the runtime's rotary kernel wants positions for every row
            more = {"position_ids": torch.arange(input_ids.shape[1]).unsqueeze(0).expand_as(input_ids)}
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **more)[0]
        vectors = _pool(self._pooling, hidden, attention_mask)
        for layer in self.dense:
            vectors = layer(vectors)
        return nn.functional.normalize(vectors, p=2.0, dim=-1) if self._normalize else vectors

    def parameters_by_name(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Canonical name and parameter; those that no embedding depends on are left out."""
        for raw, parameter in self.transformer.named_parameters():
            name = canonical(raw)
            if name is not None and not name.startswith("pooler."):
                yield f"/{name}", parameter
        for place, layer in enumerate(self.dense, start=2):
            for raw, parameter in layer.named_parameters():
                yield f"{place}_Dense/{raw}", parameter


def _pool(mode: str, hidden: Tensor, mask: Tensor) -> Tensor:
    """(batch, length, hidden), (batch, length) -> (batch, hidden); as sentence-transformers pools."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, length, 1)
    if mode == "mean":
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    if mode == "max":
        return hidden.masked_fill(weights == 0, float("-inf")).max(1).values
    # First or last token that is no padding, on whichever side the padding is.
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device).unsqueeze(0) * mask
    rank = places.to(torch.float32)
    if mode == "cls":
        rank = torch.where(mask > 0, -rank, torch.full_like(rank, float("-inf")))
    index = rank.argmax(1).view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
    return hidden.gather(1, index).squeeze(1)


def build_graph(files: EncoderFiles, spec: EncoderSpec, key: str, dest: Path) -> None:
    """Write `graph.onnx` and, after the proof, `map.json` and the sums to `dest`. Raises `EncoderBroken`."""
    torch.manual_seed(0)
    check_parameters(files, spec)
    chain = _chain(files, spec)
    parameters = dict(chain.parameters_by_name())
    _randomise(parameters)
    program = _export(chain, spec)
    dest.mkdir(parents=True)
    graph = _place(program.model, parameters, spec, key)
    _strip(program.model)
    onnx_ir.save(program.model, dest / GRAPH)
    _randomise(parameters)
    _prove(chain, spec, parameters, graph, dest)
    graph.write(dest / MAP)
    write_sums(dest)
    fsync_tree(dest)


def check_parameters(files: EncoderFiles, spec: EncoderSpec) -> None:
    """That config.json asks for the tensors that are there, before memory is taken for what it asks for.

    Raises `EncoderBroken`.
    """
    with torch.device("meta"):  # shapes without memory
        asked = {name: tuple(parameter.shape) for name, parameter in _chain(files, spec).parameters_by_name()}
    there = {name: files.shape(name) for name in files.tensor_names()}
    if odd := sorted(asked.keys() ^ there.keys()):
        raise EncoderBroken(f"The weights and config.json do not fit: {odd[0]} is only in one of them.")
    if wrong := sorted(name for name, shape in asked.items() if there[name] != shape):
        raise EncoderBroken(
            f"The weights and config.json do not fit: {wrong[0]} has the shape {there[wrong[0]]}, "
            f"config.json asks for {asked[wrong[0]]}."
        )


def _chain(files: EncoderFiles, spec: EncoderSpec) -> Chain:
    config = AutoConfig.from_pretrained(files.path(str(files.transformer / "config.json")))
    return Chain(AutoModel.from_config(config).float(), spec).eval()


def _randomise(parameters: dict[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            values = torch.randn_like(parameter)
            if parameter.dim() > 1:
                values *= parameter.shape[-1] ** -0.5
            else:
                values = 0.2 * values + (1.0 if name.endswith("weight") else 0.0)
            parameter.copy_(values)


def _export(chain: Chain, spec: EncoderSpec) -> Any:
    batch, length = 3, 7
    ids = torch.full((batch, length), spec.pad_token_id + 1)
    inputs = [ids, torch.ones_like(ids)] + ([torch.zeros_like(ids)] if spec.token_types else [])
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own insides
        program = torch.onnx.export(
            chain,
            tuple(inputs),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=_inputs(spec),
            output_names=[OUTPUT],
            dynamic_shapes=[{0: dynamic, 1: dynamic} for _ in inputs],
        )
    if program is None:
        raise EncoderBroken("The exporter gave no graph.")
    return program


def _inputs(spec: EncoderSpec) -> list[str]:
    return ["input_ids", "attention_mask"] + (["token_type_ids"] if spec.token_types else [])


def _place(model: Any, parameters: dict[str, nn.Parameter], spec: EncoderSpec, key: str) -> GraphMap:
    """Find each parameter among the graph's initialisers and point it into the weights file."""
    found = _by_content(model, parameters)
    placements, end = [], 0
    for name, parameter in parameters.items():
        initializer, transpose = found[name]
        value = model.graph.initializers[initializer]
        table = parameter.dim() == 2 and [node.op_type for node, _ in value.uses()] == ["Gather"] and not transpose
        table = table and parameter.shape[0] == _vocabulary(spec)
        nbytes = parameter.numel() * 4
        placements.append(
            Placement(name=name, initializer=initializer, transpose=transpose, offset=end, nbytes=nbytes, table=table)
        )
        value.const_value = onnx_ir.ExternalTensor(
            WEIGHTS, end, nbytes, onnx_ir.DataType.FLOAT, shape=value.const_value.shape, name=initializer
        )
        if not table:
            end += nbytes + (-nbytes % ALIGNMENT)
    return GraphMap(key=key, inputs=tuple(_inputs(spec)), placements=tuple(placements))


def _by_content(model: Any, parameters: dict[str, nn.Parameter]) -> dict[str, tuple[str, bool]]:
    """Parameter -> (initialiser, transposed). Raises `EncoderBroken` unless it is one to one."""
    places: dict[tuple[tuple[int, ...], bytes], list[tuple[str, bool]]] = {}
    for name, value in model.graph.initializers.items():
        array = value.const_value.numpy()
        places.setdefault(_content(array), []).append((name, False))
        if array.ndim == 2 and array.dtype == np.float32:
            places.setdefault(_content(array.T), []).append((name, True))
    found = {}
    for name, parameter in parameters.items():
        matches = places.get(_content(parameter.detach().numpy()), [])
        if len(matches) != 1:
            raise EncoderBroken(f"The export uses parameter {name} in {len(matches)} places; 1 is expected.")
        found[name] = matches[0]
    if len({initializer for initializer, _ in found.values()}) != len(found):
        raise EncoderBroken("The export put two parameters into one.")
    return found


def _content(array: NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
    return array.shape, np.ascontiguousarray(array).tobytes()


def _vocabulary(spec: EncoderSpec) -> int:
    return int(json.loads(spec.architecture)["vocab_size"])


def _strip(model: Any) -> None:
    """Take out what tells of the machine and the code that exported: it is no part of the computation."""
    model.metadata_props.clear()
    model.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _prove(chain: Chain, spec: EncoderSpec, parameters: dict[str, nn.Parameter], graph: GraphMap, dest: Path) -> None:
    """Compare the graph with torch on mixed-length batches, every parameter replaced since the export."""
    arrays = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
    with tempfile.TemporaryDirectory(prefix="adiabat-") as folder:
        write_weights(graph, arrays.__getitem__, Path(folder))
        tables = shared_tables(graph, {name: (array, None) for name, array in arrays.items()}, SharedTensors())
        session = open_session(dest, Path(folder), tables, os.cpu_count() or 1)
        for shape in _PROOF_SHAPES:
            batch = _proof_batch(spec, *shape)
            with torch.no_grad():
                expected = chain(**{name: torch.from_numpy(array) for name, array in batch.items()}).numpy()
            error = np.abs(session.run([OUTPUT], batch)[0] - expected).max() / max(1.0, np.abs(expected).max())
            if not error < TOLERANCE:
                raise EncoderBroken(f"The exported graph is off by {error:.1e} from torch at shape {shape}.")


def _proof_batch(spec: EncoderSpec, rows: int, length: int) -> dict[str, NDArray[np.int64]]:
    random = np.random.default_rng(rows * 1000 + length)
    length = min(length, spec.max_length)
    ids = random.integers(0, _vocabulary(spec), (rows, length))
    ids[ids == spec.pad_token_id] = spec.pad_token_id + 1
    lengths = np.array([length, *random.integers(1, length + 1, rows - 1)])
    places = np.arange(length)
    if spec.padding_side == "left":
        places = places[::-1]
    mask = (places[None, :] < lengths[:, None]).astype(np.int64)
    batch = {"input_ids": np.where(mask == 1, ids, spec.pad_token_id), "attention_mask": mask}
    return batch | {"token_type_ids": np.zeros_like(mask)} if spec.token_types else batch
