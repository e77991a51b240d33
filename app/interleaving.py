"""Team-draft interleaving: one list of hits from two rankings, of which clicks say whose are preferred.

Radlinski, Kurup and Joachims, "How Does Clickthrough Data Reflect Retrieval Quality?", CIKM 2008. In every round a coin
says which of the two picks first; each picks the best of its ranking that is not in the list yet. Where neither is
better, clicks go to either team with the same probability, whatever position bias they have.

What both rank alike from the first hit on belongs to neither: whose it were would be a coin's word, and a click on it
nothing but noise.
"""

import random
from collections.abc import Iterator, Sequence

ACTIVE, CANARY, SHARED = "a", "c", "="


def team_draft(active: Sequence[str], canary: Sequence[str], seed: str, depth: int) -> tuple[list[str], str]:
    """Up to `depth` ids, best first, and a letter for each: whose pick it is.

    The same `seed` draws the same coins, so that a deeper list begins with a shorter one.
    """
    drafted = list(_alike(active, canary))[:depth]
    teams = SHARED * len(drafted)
    taken = set(drafted)
    coins = random.Random(seed)
    left = {ACTIVE: iter(active), CANARY: iter(canary)}
    while len(drafted) < depth:
        order = (ACTIVE, CANARY) if coins.random() < 0.5 else (CANARY, ACTIVE)
        before = len(drafted)
        for team in order:
            pick = next((each for each in left[team] if each not in taken), None)
            if pick is not None:
                drafted.append(pick)
                taken.add(pick)
                teams += team
        if len(drafted) == before:
            break
    return drafted[:depth], teams[:depth]


def _alike(active: Sequence[str], canary: Sequence[str]) -> Iterator[str]:
    for ours, theirs in zip(active, canary, strict=False):
        if ours != theirs:
            return
        yield ours
