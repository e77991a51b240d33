"""What turns texts into vectors. Two kinds with one face: ONNX Runtime, and torch as the reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec

GPU = Path("/dev/nvidiactl")  # there where the driver is, without importing torch to ask


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
        """Tokens embedded so far, padding not counted; exact where one thread embeds."""
        ...

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        """Vectors of `prompt` + each text, shape (n, dim)."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens per text, special ones included, after cutting to the maximum length."""
        ...

    def close(self) -> None: ...


def load_engine(
    files: EncoderFiles, spec: EncoderSpec, *, kind: str, threads: int, graphs_dir: Path, weights_dir: Path
) -> Engine:
    """Load the encoder on the engine of that kind: "onnx", "torch", or "auto" (torch where there is a GPU).

    `graphs_dir` holds exported graphs, one per architecture, `weights_dir` the runtime's copies of weights;
    both are caches that may be emptied while nothing is loaded. Raises `EncoderBroken`.
    """
    if runs_on_torch(kind):
        from app.encoders.torch_engine import TorchEngine  # torch takes seconds and 300 MB to import

        return TorchEngine(files, spec, threads=threads)
    from app.encoders.export import export_graph
    from app.encoders.onnx_engine import OnnxEngine

    graph = export_graph(files, spec, graphs_dir)
    return OnnxEngine(files, spec, graph=graph, weights_dir=weights_dir, threads=threads)


def runs_on_torch(kind: str) -> bool:
    return kind == "torch" or (kind == "auto" and has_gpu())


def has_gpu() -> bool:
    return GPU.exists()
