"""Collections that another program embedded, taken over with their vectors: nothing is embedded again but a sample.

A `source` is read page by page, a `probe` of it says whether the encoder that is named made its vectors, `bringing`
puts them into the passage store.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How the sample is judged: its size, which share of it may differ, from which cosine on two vectors are equal.

    Of vectors that one encoder made of one text, rounding, a GPU's half precision and fp16 storage stay above 0.999.
    """

    samples: int = 200
    max_different: float = 0.0
    min_cosine: float = 0.999
