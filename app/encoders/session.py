"""ONNX Runtime sessions over an exported graph, an encoder's own weights and shared token embeddings."""

import hashlib
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.encoders.graph import GRAPH, GraphMap, map_table, table_file
from app.errors import EncoderBroken

OUTPUT = "sentence_vectors"
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
# One fused kernel takes 1.0 ms where Add and LayerNormalization take 0.2 (492 tokens of MiniLM, one thread).
_SLOWER = ["SkipLayerNormFusion"]


class SharedTensor:
    """A tensor that several sessions use; in memory as long as one of them is."""

    __slots__ = ("__weakref__", "array", "key", "value")

    def __init__(self, key: str, array: NDArray[np.float32]) -> None:
        self.key = key
        self.array = array
        self.value = onnxruntime.OrtValue.ortvalue_from_numpy(self.array)


class SharedTensors:
    """One per content in the process, so that encoders over one base hold its table once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: weakref.WeakValueDictionary[str, SharedTensor] = weakref.WeakValueDictionary()

    def get(
        self, array: NDArray[np.float32], digest: str | None = None, weights_dir: Path | None = None
    ) -> SharedTensor:
        """The shared one like `array`; `digest` identifies its content, and is computed where not given.

        With `weights_dir` mapped from a file there, which other processes share too; else a copy in memory.
        """
        key = f"{digest or hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()} {array.shape}"
        with self._lock:
            found = self._known.get(key)
            if found is None:
                if digest and weights_dir:
                    shared = map_table(array, table_file(weights_dir, digest))
                else:
                    shared = np.array(array, dtype=np.float32, order="C")
                found = self._known[key] = SharedTensor(key, shared)
            return found

    def __len__(self) -> int:
        return len(self._known)

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(tensor.array.nbytes for tensor in self._known.values())


SHARED = SharedTensors()


def open_session(
    folder: Path, weights: Path, tables: dict[str, SharedTensor], threads: int, *, mapped: bool = False
) -> onnxruntime.InferenceSession:
    """A session on `folder`'s graph with the weights in the folder `weights`; `threads` 0 means all cores.

    `tables` maps initialisers to shared tensors; the caller must keep them as long as the session. `mapped`: weights
    stay as the file has them, which the processes of a machine then have in memory once.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # An arena would keep the largest batch's activations for good, in every encoder: 11 MB each for MiniLM.
    options.enable_cpu_mem_arena = False
    # The runtime's own form of a matrix is this process's own memory; without it, each run makes that form anew.
    own_form = "session.disable_prepacking" if mapped else "session.use_device_allocator_for_initializers"
    options.add_session_config_entry(own_form, "1")
    # Threads that spin between two operators take the cores from the store, the trainer and other encoders:
    # with the cores shared, one query took 21 ms with spinning and 10 ms without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(_EXTERNAL_FOLDER, str(weights))
    for name, shared in tables.items():
        options.add_initializer(name, shared.value)
    try:
        graph = (folder / GRAPH).read_bytes()
        return onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
        )
    except Exception as error:  # the runtime raises a dozen unrelated classes
        raise EncoderBroken(f"ONNX Runtime cannot load the graph in {folder.name} ({error}).") from error


def shared_tables(
    graph: GraphMap,
    tensors: Mapping[str, tuple[NDArray[np.float32], str | None]],
    shared: SharedTensors,
    weights_dir: Path | None = None,
) -> dict[str, SharedTensor]:
    """The shared tensor of each table of the graph, by initialiser. `tensors`: name to (array, digest)."""
    tables = [place for place in graph.placements if place.table]
    return {place.initializer: shared.get(*tensors[place.name], weights_dir) for place in tables}
