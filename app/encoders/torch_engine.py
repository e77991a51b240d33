"""The torch engine: sentence-transformers itself. The reference for the other engine, and the one for GPUs."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.encoders.files import write_full
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec
from app.encoders.tokenize import QueryTokenizer

_BATCH = 32


class TorchEngine:
    """fp32, on the GPU where there is one."""

    name = "torch"

    def __init__(self, files: EncoderFiles, spec: EncoderSpec, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory(prefix="adiabat-") as folder:
            write_full(files, Path(folder))
            self._model = SentenceTransformer(
                folder, local_files_only=True, model_kwargs={"dtype": torch.float32, "use_safetensors": True}
            )
        self._model.default_prompt_name = None  # prompts come from the caller, all of them
        self._model.max_seq_length = spec.max_length
        self._tokenizer = QueryTokenizer(files, spec)
        self.dimension = spec.dimension
        self.weights_bytes = sum(weights.nbytes for weights in self._model.parameters())
        self.shared_bytes: dict[str, int] = {}
        self.tokens = 0

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        """Vectors of `prompt` + each text, shape (n, dim)."""
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        prompted = [prompt + text for text in texts]
        self.tokens += sum(self._tokenizer.lengths(prompted))
        vectors = self._model.encode(prompted, batch_size=_BATCH, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.lengths(texts)

    def close(self) -> None:
        del self._model
