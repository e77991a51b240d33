"""The ONNX Runtime engine. Imports no torch, transformers or sentence-transformers: the service runs on it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoders.digest import weights_ending
from app.encoders.engine import OwnCount
from app.encoders.graph import MAP, GraphMap, write_weights
from app.encoders.mounts import is_own
from app.encoders.overlay import EncoderFiles
from app.encoders.packing import BATCH_TOKENS, pack
from app.encoders.session import OUTPUT, SHARED, SharedTensors, open_session, shared_tables
from app.encoders.spec import EncoderSpec
from app.encoders.tokenize import QueryTokenizer
from app.errors import EncoderBroken


class OnnxEngine:
    """`graph` is a folder that `export_graph` made. The weights are written below `weights_dir` at first use.

    The token embeddings are in memory once for all encoders and processes that have the same. The rest is this engine's
    own, since the runtime brings it into a form of its own; not with `mapped`, where the processes of a machine have it
    once too and short queries take longer. On a disk that other machines may write to nothing is mapped.
    """

    name = "onnx"

    def __init__(
        self,
        files: EncoderFiles,
        spec: EncoderSpec,
        *,
        graph: Path,
        weights_dir: Path,
        threads: int = 0,
        mapped: bool = False,
        shared: SharedTensors = SHARED,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        placed = GraphMap.read(graph / MAP)
        folder = weights_folder(files, placed, weights_dir)
        write_weights(placed, files.tensor, folder)
        tables = {p.name: (files.tensor(p.name), files.tensor_hashes[p.name]) for p in placed.placements if p.table}
        self._tables = shared_tables(placed, tables, shared, weights_dir)
        self._session = open_session(graph, folder, self._tables, threads, mapped=mapped and is_own(folder))
        self._tokenizer = QueryTokenizer(files, spec)
        self._batch_tokens = batch_tokens
        self.dimension = spec.dimension
        self.weights_bytes = placed.weights_bytes
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
        for group in pack(lengths, self._batch_tokens):
            batch = self._tokenizer.pad([encodings[i] for i in group])
            vectors[group] = self._session.run([OUTPUT], batch)[0]
        return vectors

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.lengths(texts)

    def close(self) -> None:
        """Free the weights now; the shared tables go with the last engine that uses them."""
        del self._session
        self._tables = {}


def weights_folder(files: EncoderFiles, graph: GraphMap, weights_dir: Path) -> Path:
    """Where the runtime's copy of these weights is kept: by content, so that no other encoder's is ever read.

    Raises `EncoderBroken` where the graph is of other parameters.
    """
    if {place.name for place in graph.placements} != set(files.tensor_names()):
        raise EncoderBroken("The exported graph was made for an encoder with other parameters.")
    return weights_dir / f"{graph.key[:16]}-{weights_ending(files)}"
