"""Which pairs make up which step: a pure function of the lengths, the seed and the step, so a run resumes.

Queries of similar length stand together, because a batch costs as much as its longest query.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# Lengths are sorted inside stretches of this many batches: wide enough to save most of the padding
# (95% of what sorting everything saves, on real questions), narrow enough that a batch's company changes from
# epoch to epoch.
STRETCH = 32


def steps_per_epoch(pairs: int, batch_size: int) -> int:
    return -(-pairs // batch_size)


class Batches:
    """All batches of a run; `batches[step]` holds pair indices, at most `batch_size` of them."""

    def __init__(self, lengths: Indices, *, batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._seed = seed
        self.per_epoch = steps_per_epoch(len(lengths), batch_size)
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)

    def __getitem__(self, step: int) -> Indices:
        epoch, position = divmod(step, self.per_epoch)
        return self._epoch(epoch)[position]

    def _make_epoch(self, epoch: int) -> list[Indices]:
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._lengths))
        # Even sizes: a last batch of three pairs would have almost no negatives and a step as large as any.
        batches = np.array_split(order, self.per_epoch)
        for start in range(0, len(batches), STRETCH):
            stretch = batches[start : start + STRETCH]
            pool = np.concatenate(stretch)
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches[start : start + STRETCH] = np.split(pool, np.cumsum([len(b) for b in stretch])[:-1])
        return [batches[i] for i in rng.permutation(len(batches))]
