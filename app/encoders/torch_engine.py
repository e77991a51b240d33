"""The torch engine: sentence-transformers itself. The reference for the other engine, and the one for GPUs."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.encoders.engine import OwnCount, Precision
from app.encoders.files import write_full
from app.encoders.overlay import EncoderFiles
from app.encoders.spec import EncoderSpec
from app.encoders.tokenize import QueryTokenizer

_BATCH = 32
_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchEngine:
    """On the GPU where there is one."""

    name = "torch"

    def __init__(
        self, files: EncoderFiles, spec: EncoderSpec, *, threads: int = 0, precision: Precision = "fp32"
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory(prefix="adiabat-") as folder:
            write_full(files, Path(folder))
            self._model = SentenceTransformer(
                folder, local_files_only=True, model_kwargs={"dtype": _TYPES[precision], "use_safetensors": True}
            )
        self._model.default_prompt_name = None  # prompts come from the caller, all of them
        self._model.max_seq_length = spec.max_length
        self._tokenizer = QueryTokenizer(files, spec)
        self.dimension = spec.dimension
        self.weights_bytes = sum(weights.nbytes for weights in self._model.parameters())
        self.shared_bytes: dict[str, int] = {}
        self._tokens = OwnCount()

    @property
    def tokens(self) -> int:
        return self._tokens.value

    def embed(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.float32]:
        """Vectors of `prompt` + each text, shape (n, dim)."""
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        prompted = [prompt + text for text in texts]
        self._tokens.value += sum(self._tokenizer.lengths(prompted))
        vectors = self._model.encode(prompted, batch_size=_BATCH, show_progress_bar=False, convert_to_tensor=True)
        return np.asarray(vectors.float().cpu().numpy())

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.lengths(texts)

    def close(self) -> None:
        del self._model
