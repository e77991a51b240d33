import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from trainer.embed import BATCH_TOKENS, batches_by_length, embed, token_counts

TEXTS = ["heart", "what is the pump " * 30, "", "wie funktioniert das Licht?", "心脏是什么", "oil " * 500]


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_vectors_equal_those_of_encode_in_the_order_given(tiny: SentenceTransformer, prompt: str) -> None:
    wanted = tiny.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
    assert np.abs(embed(tiny, TEXTS, prompt=prompt) - wanted).max() < 1e-5


def test_the_prompt_matters(tiny: SentenceTransformer) -> None:
    assert np.abs(embed(tiny, TEXTS, prompt="query: ") - embed(tiny, TEXTS)).max() > 1e-2


def test_every_row_is_in_one_batch_and_no_batch_is_over_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 512, size=500)
    batches = batches_by_length(lengths)
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert all(len(batch) * lengths[batch].max() <= BATCH_TOKENS for batch in batches)
    assert len(batches) < 1.2 * lengths.sum() / BATCH_TOKENS
    assert batches_by_length(np.array([1, 2 * BATCH_TOKENS]))[0].tolist() == [1]


def test_tokens_are_counted_with_the_prompt_and_after_truncation(tiny: SentenceTransformer) -> None:
    counts = token_counts(tiny, ["heart pump", "heart pump " * 100], "")
    assert counts.tolist() == [4, 64]
    assert token_counts(tiny, ["heart pump"], "what is ").tolist() == [6]


def test_progress_ends_at_the_total(tiny: SentenceTransformer) -> None:
    seen: list[tuple[int, int]] = []
    embed(tiny, TEXTS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
