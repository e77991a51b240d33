"""Whether an encoder made a collection's vectors: a sample is embedded again and compared, place by place.

The sample takes one point at random from each of as many equal stretches of the order, so that it speaks for the
whole, and so that a foreign part in one piece as long as two stretches cannot lie between its points.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from app.encoders.probes import cosines

CONFIDENCE = 0.95
TOLD_RANGES = 5
NEAR = 0.9
HINT_TEXTS = 32
HINT_FIELDS = 8
HINT_SHARE = 0.9
USUAL_PROMPTS = ("", "passage: ", "query: ", "search_document: ")

Embed = Callable[[Sequence[str], str], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sampled:
    """A point of the sample: its place, what of it is embedded, and the vector (dim,) it has.

    `others`: its further fields that hold text, and `titled`: what would be embedded if one of them were the title.
    """

    at: str
    title: str
    text: str
    rendered: str
    others: Mapping[str, str]
    titled: Mapping[str, str]
    vector: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Consecutive points of the sample whose vectors the encoder did not make; the first and the last of them."""

    first: str
    last: str
    samples: int
    cosine: float  # mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """`share`: between which shares of the whole collection the equal ones lie, with `CONFIDENCE`; `limit`: the cosine
    from which on two vectors count as equal.
    """

    limit: float
    sampled: int
    equal: int
    share: tuple[float, float]
    lowest: float
    median: float
    different: tuple[Range, ...]
    hints: tuple[str, ...] = ()

    def allows(self, max_different: float) -> bool:
        return self.sampled - self.equal <= max_different * self.sampled

    def sentence(self, encoder: str) -> str:
        low, high = (f"{100 * share:.1f}%" for share in self.share)
        return (
            f"{self.equal} of {self.sampled} sampled passages have the vector that {encoder} gives "
            f"(cosine at least {self.limit}; median {self.median:.4f}, lowest {self.lowest:.4f}): "
            f"between {low} and {high} of all, with {100 * CONFIDENCE:.0f}% confidence."
        )


def ranks(count: int, wanted: int, seed: int = 0) -> list[int]:
    """At most `wanted` places of `count`, one drawn from each of so many equal stretches; rising."""
    draw, taken = random.Random(seed), min(count, wanted)
    edges = [count * number // taken for number in range(taken + 1)]
    return [draw.randrange(low, high) for low, high in pairwise(edges)]


def compare(sample: Sequence[Sampled], embed: Embed, prompt: str, lengths: Sequence[int], limit: float) -> Finding:
    """`lengths` are the samples' in tokens, for the one hint that needs them."""
    found = _cosines(sample, embed, prompt, [each.rendered for each in sample])
    same = found >= limit
    equal = int(same.sum())
    return Finding(
        limit=limit,
        sampled=len(sample),
        equal=equal,
        share=interval(equal, len(sample)),
        lowest=float(found.min()),
        median=float(np.median(found)),
        different=_ranges(sample, found, same),
        hints=tuple(_hints(sample, found, limit, embed, prompt, lengths)) if equal < len(sample) else (),
    )


def interval(equal: int, sampled: int) -> tuple[float, float]:
    """Of a share, by Clopper and Pearson (Biometrika 26, 1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, equal, sampled - equal + 1)) if equal else 0.0
    high = float(beta.ppf(1 - tail, equal + 1, sampled - equal)) if equal < sampled else 1.0
    return low, high


def _cosines(sample: Sequence[Sampled], embed: Embed, prompt: str, texts: Sequence[str]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # a vector of zeros has no direction
        found = cosines(embed(texts, prompt), np.stack([each.vector for each in sample]))
    return np.nan_to_num(found, nan=-1.0)


def _ranges(sample: Sequence[Sampled], found: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[Range, ...]:
    ranges = []
    for is_same, group in groupby(range(len(sample)), key=lambda place: bool(same[place])):
        places = list(group)
        if not is_same:
            cosine = float(found[places].mean())
            first, last = sample[places[0]].at, sample[places[-1]].at
            ranges.append(Range(first=first, last=last, samples=len(places), cosine=cosine))
    return tuple(ranges)


def _hints(
    sample: Sequence[Sampled],
    found: NDArray[np.float64],
    limit: float,
    embed: Embed,
    prompt: str,
    lengths: Sequence[int],
) -> list[str]:
    """What would make the different ones equal, of what is often forgotten. Tried on some of them."""
    same = found >= limit
    different = [each for each, is_same in zip(sample, same, strict=True) if not is_same][:HINT_TEXTS]

    def cured(texts: Sequence[str], with_prompt: str) -> bool:
        return float((_cosines(different, embed, with_prompt, texts) >= limit).mean()) >= HINT_SHARE

    rendered = [each.rendered for each in different]
    for other in USUAL_PROMPTS:
        if other != prompt and cured(rendered, other):
            return [f"They are equal with --passage-prompt {other!r}."]
    if any(each.title for each in different) and cured([each.text for each in different], prompt):
        return ["They are equal without the title: leave out --title-field, and it stays in the metadata."]
    named = sorted(set.intersection(*(set(each.others) for each in different)))[:HINT_FIELDS]
    for name in named:
        if cured([each.others[name] for each in different], prompt):
            return [f"They are equal with --text-field {name}."]
        if name in different[0].titled and cured([each.titled[name] for each in different], prompt):
            return [f"They are equal with --title-field {name}."]
    if same.any():
        long, short = np.asarray(lengths)[~same], np.asarray(lengths)[same]
        if long.min() > short.max():
            return [
                f"They are the long ones, of over {short.max()} tokens: the vectors were made with another maximum "
                "length. Set max_seq_length in a copy of the model's folder to what it was, and name that."
            ]
    if np.median(found[~same]) >= NEAR:
        return [
            "They are near: of another text (a title before it, a prefix), or by a tuned or a quantised copy of this "
            "encoder. Name the text, or the tuned one; those of a quantised one can be taken with a lower --min-cosine."
        ]
    return []


def told_ranges(finding: Finding) -> str:
    """Where the different ones lie, in words."""
    told = [
        f"{each.first} (cosine {each.cosine:.2f})"
        if each.samples == 1
        else f"{each.first} to {each.last} ({each.samples} samples, mean cosine {each.cosine:.2f})"
        for each in finding.different[:TOLD_RANGES]
    ]
    more = len(finding.different) - TOLD_RANGES
    return ", ".join(told) + (f", and at {more} places more" if more > 0 else "")
