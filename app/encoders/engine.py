"""What turns texts into vectors. Three kinds with one face: ONNX Runtime, OpenVINO, and torch as the reference."""

import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec
from app.errors import EncoderBroken

Precision = Literal["fp32", "bf16"]

GPU = Path("/dev/nvidiactl")  # there where the driver is, without importing torch to ask


class OwnCount(threading.local):
    """A number that each thread has for itself."""

    value = 0


class Engine(Protocol):
    """An encoder that runs. Thread-safe; nothing may be called after `close`."""

    @property
    def name(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def weights_bytes(self) -> int:
        """Memory for weights that this engine has for itself."""
        ...

    @property
    def shared_bytes(self) -> Mapping[str, int]:
        """Memory for weights that engines share, by content."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens that the calling thread has embedded so far, padding not counted."""
        ...

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        """Vectors of `prompt` + each text, shape (n, dim)."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens per text, special ones included, after cutting to the maximum length."""
        ...

    def close(self) -> None: ...


def load_engine(
    files: EncoderFiles,
    spec: EncoderSpec,
    *,
    kind: str,
    threads: int,
    graphs_dir: Path,
    weights_dir: Path,
    precision: Precision = "fp32",
    lanes: int = 1,
    map_weights: bool = False,
) -> Engine:
    """Load the encoder on the engine of that kind: "onnx", "openvino", "torch", or "auto".

    "auto" is torch where there is a GPU, else ONNX Runtime, which knows fp32 alone, so OpenVINO for bf16. `threads` 0
    means all cores; OpenVINO shares them among `lanes` runs that may be under way at once. `graphs_dir` holds exported
    graphs, one per architecture, `weights_dir` the runtime's copies of weights; both are caches that may be emptied
    while nothing is loaded. With `map_weights` ONNX Runtime leaves weights in their file. Raises `EncoderBroken`.
    """
    kind = chosen(kind, precision)
    require_usable(kind, precision)
    if kind == "torch":
        from app.encoders.torch_engine import TorchEngine  # torch takes seconds and 300 MB to import

        return TorchEngine(files, spec, threads=threads, precision=precision)
    from app.encoders.export import export_graph

    graph = export_graph(files, spec, graphs_dir)
    if kind == "openvino":
        from app.encoders.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(
            files, spec, graph=graph, weights_dir=weights_dir, threads=threads, lanes=lanes, precision=precision
        )
    from app.encoders.onnx_engine import OnnxEngine

    return OnnxEngine(files, spec, graph=graph, weights_dir=weights_dir, threads=threads, mapped=map_weights)


def chosen(kind: str, precision: Precision = "fp32") -> str:
    """What "auto" comes to on this machine."""
    if kind != "auto":
        return kind
    if has_gpu():
        return "torch"
    return "onnx" if precision == "fp32" else "openvino"


def require_usable(kind: str, precision: Precision) -> None:
    """Before a graph is exported for it, which takes half a minute. Raises `EncoderBroken`."""
    if kind == "onnx" and precision != "fp32":
        raise EncoderBroken("ONNX Runtime computes in fp32; for bf16 set ADIABAT_ENGINE=openvino, or torch on a GPU.")
    if kind == "openvino" and find_spec("openvino") is None:
        fp32 = " and ADIABAT_PRECISION=fp32" if precision != "fp32" else ""
        raise EncoderBroken(
            f"OpenVINO is not installed; pip install 'adiabat[openvino]', or set ADIABAT_ENGINE=onnx{fp32}."
        )


def has_gpu() -> bool:
    return GPU.exists()
