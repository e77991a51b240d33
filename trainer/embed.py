"""Texts to vectors with a sentence-transformers model, sorted by length. The caller chooses the prompt."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor

from trainer.stopping import ShouldStop, check, never

# Characters per forward pass, padding included: about 4,000 tokens, past which a CPU gains nothing.
BATCH_CHARS = 16_000
MAX_BATCH = 256

OnProgress = Callable[[int, int], None]


def ignore_progress(done: int, total: int) -> None:
    """For callers who do not watch."""


def forward(model: SentenceTransformer, texts: Sequence[str], prompt: str) -> Tensor:
    """The model's vectors of a batch, normalised, with a graph if parameters require one: (batch, dim)."""
    features = model.preprocess(list(texts), prompt=prompt or None)
    features = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in features.items()}
    return torch.nn.functional.normalize(model(features)["sentence_embedding"].float(), dim=1)


def embed(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    prompt: str = "",
    out: NDArray[np.float32] | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never,
) -> NDArray[np.float32]:
    """The vectors of `texts` in their order: (n, dim) fp32, normalised; written into `out` if given."""
    if out is None:
        out = np.empty((len(texts), dimension(model)), dtype=np.float32)
    model.eval()
    done = 0
    for rows in batches_by_length(texts):
        check(should_stop)
        with torch.inference_mode():
            out[rows] = forward(model, [texts[row] for row in rows], prompt).cpu().numpy()
        done += len(rows)
        on_progress(done, len(texts))
    return out


def dimension(model: SentenceTransformer) -> int:
    with torch.inference_mode():
        return int(forward(model, ["dimension"], "").shape[1])


def batches_by_length(texts: Sequence[str]) -> list[list[int]]:
    """Row numbers in batches of similar length, longest first, so that a lack of memory shows at once."""
    batches: list[list[int]] = []
    for row in sorted(range(len(texts)), key=lambda row: (-len(texts[row]), row)):
        size = MAX_BATCH if not batches else len(batches[-1])
        longest = len(texts[batches[-1][0]]) if batches else 0
        if size == MAX_BATCH or (size + 1) * longest > BATCH_CHARS:
            batches.append([])
        batches[-1].append(row)
    return batches
