import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from trainer.embed import BATCH_CHARS, batches_by_length, embed

TEXTS = ["heart", "what is the pump " * 30, "", "wie funktioniert das Licht?", "心脏是什么", "oil " * 500]


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_vectors_equal_those_of_encode_in_the_order_given(tiny: SentenceTransformer, prompt: str) -> None:
    wanted = tiny.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
    assert np.abs(embed(tiny, TEXTS, prompt=prompt) - wanted).max() < 1e-5


def test_the_prompt_matters(tiny: SentenceTransformer) -> None:
    assert np.abs(embed(tiny, TEXTS, prompt="query: ") - embed(tiny, TEXTS)).max() > 1e-2


def test_every_row_is_in_one_batch_and_no_batch_is_over_the_budget() -> None:
    rng = np.random.default_rng(0)
    texts = ["x" * int(n) for n in rng.integers(1, 3000, size=500)]
    batches = batches_by_length(texts)
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert all(len(batch) * max(len(texts[row]) for row in batch) <= BATCH_CHARS for batch in batches)
    assert batches_by_length(["x" * (2 * BATCH_CHARS), "y"])[0] == [0]


def test_progress_ends_at_the_total(tiny: SentenceTransformer) -> None:
    seen: list[tuple[int, int]] = []
    embed(tiny, TEXTS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
