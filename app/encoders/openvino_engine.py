"""The OpenVINO engine: the same exported graph and weights on Intel's runtime, in fp32 or bf16.

What it buys is bf16, for which processors with AMX have units of their own: 2.5 times the queries of fp32. In fp32 it
is as fast as ONNX Runtime and takes more memory.
"""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from app.encoders.cores import whole_cores
from app.encoders.engine import OwnCount, Precision
from app.encoders.graph import GRAPH, MAP, GraphMap, write_weights
from app.encoders.half_made import half_made
from app.encoders.mounts import is_own
from app.encoders.onnx_engine import weights_folder
from app.encoders.overlay import EncoderFiles
from app.encoders.packing import BATCH_TOKENS, pack
from app.encoders.session import SHARED, SharedTensors, shared_tables
from app.encoders.spec import EncoderSpec
from app.encoders.tokenize import QueryTokenizer
from app.errors import EncoderBroken

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # OpenVINO's import reports to Intel through it
import openvino  # noqa: E402
import openvino.opset13 as opset  # noqa: E402

MODEL = "openvino.onnx"
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """`graph` is a folder that `export_graph` made. `lanes` runs may be under way at once, on `threads` together.

    Tables are in memory once for all encoders that have the same, as with ONNX Runtime.
    """

    name = "openvino"

    def __init__(
        self,
        files: EncoderFiles,
        spec: EncoderSpec,
        *,
        graph: Path,
        weights_dir: Path,
        threads: int = 0,
        lanes: int = 1,
        precision: Precision = "fp32",
        shared: SharedTensors = SHARED,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        placed = GraphMap.read(graph / MAP)
        folder = weights_folder(files, placed, weights_dir)
        write_weights(placed, files.tensor, folder)
        tables = {p.name: (files.tensor(p.name), files.tensor_hashes[p.name]) for p in placed.placements if p.table}
        self._tables = shared_tables(placed, tables, shared, weights_dir)
        if precision == "bf16" and not has_bf16():
            raise EncoderBroken("This processor has no bf16; set ADIABAT_PRECISION=fp32.")
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": is_own(folder)})  # of the weights: see `map_table`
        try:
            model = core.read_model(_with_tables_as_inputs(graph, folder, set(self._tables)))
            for parameter in model.get_parameters():
                if shared_table := self._tables.get(parameter.friendly_name):
                    constant = opset.constant(shared_table.array, shared_memory=True)
                    for target in parameter.output(0).get_target_inputs():
                        target.replace_source_output(constant.output(0))
                    model.remove_parameter(parameter)
            config = {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "INFERENCE_NUM_THREADS": threads or whole_cores(),
                "NUM_STREAMS": lanes,
                "ENABLE_CPU_PINNING": False,
            }
            self._compiled = core.compile_model(model, "CPU", config)
        except Exception as error:
            raise EncoderBroken(f"OpenVINO cannot load the graph in {graph.name} ({error}).") from error
        self._request = threading.local()
        self._tokenizer = QueryTokenizer(files, spec)
        self._batch_tokens = batch_tokens
        self.dimension = spec.dimension
        self.weights_bytes = 2 * placed.weights_bytes  # the mapped file, and the runtime's own layout of it
        self.shared_bytes = {table.key: table.array.nbytes for table in self._tables.values()}
        self._tokens = OwnCount()

    @property
    def tokens(self) -> int:
        return self._tokens.value

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        """Vectors of `prompt` + each text, shape (n, dim). Raises `BadInput` for text that is no Unicode."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        encodings = self._tokenizer.split(texts, prompt)
        lengths = [len(encoding) for encoding in encodings]
        self._tokens.value += sum(lengths)
        request = self._own_request()
        for group in pack(lengths, self._batch_tokens):
            request.infer(self._tokenizer.pad([encodings[i] for i in group]))
            vectors[group] = request.get_output_tensor(0).data
        return vectors

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.lengths(texts)

    def close(self) -> None:
        """Free the weights now; the shared tables go with the last engine that uses them."""
        del self._compiled
        self._request = threading.local()
        self._tables = {}

    def _own_request(self) -> openvino.InferRequest:
        """One to a thread: a request holds its inputs and outputs."""
        if not hasattr(self._request, "value"):
            self._request.value = self._compiled.create_infer_request()
        request: openvino.InferRequest = self._request.value
        return request


def has_bf16() -> bool:
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _with_tables_as_inputs(graph: Path, folder: Path, tables: set[str]) -> Path:
    """The graph beside its weights, as a file of OpenVINO's: its reader wants both in one folder."""
    path = folder / MODEL
    if path.exists():
        return path
    model = onnx.load(graph / GRAPH, load_external_data=False)
    for value in [each for each in model.graph.initializer if each.name in tables]:
        model.graph.initializer.remove(value)
        model.graph.input.append(onnx.helper.make_tensor_value_info(value.name, value.data_type, list(value.dims)))
    half = half_made(folder)
    try:
        half.write_bytes(model.SerializeToString())
        half.rename(path)
    finally:
        half.unlink(missing_ok=True)
    return path
