"""Which texts share a run of the engine: sorted by length, cut so that little is computed on padding."""

from collections.abc import Sequence

import numpy as np

BATCH_TOKENS = 1024
_SLACK = 8  # tokens of padding per text that are cheaper than another run


def pack(lengths: Sequence[int], batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Groups of indices into `lengths`, longest first, each at most `batch_tokens` tokens once padded.

    A text longer than the budget is a group of its own. No text is padded to more than half as much again
    plus a few tokens.
    """
    groups: list[list[int]] = []
    longest = 0
    for index in np.argsort(lengths, kind="stable")[::-1].tolist():
        length = lengths[index]
        full = not groups or (len(groups[-1]) + 1) * longest > batch_tokens
        if full or longest > length + length // 2 + _SLACK:
            groups.append([])
            longest = length
        groups[-1].append(index)
    return groups
