"""Team-draft interleaving: one list of hits from two rankings, of which clicks say whose are preferred.

Radlinski, Kurup and Joachims, "How Does Clickthrough Data Reflect Retrieval Quality?", CIKM 2008. In every round a coin
says which of the two picks first; each picks the best of its ranking that is not in the list yet. Where neither is
better, clicks go to either team with the same probability, whatever position bias they have.

Where both would pick the same hit it belongs to neither, and the round has no other: whose it were would be a coin's
word, and a click on it nothing but noise.
"""

import random
from collections.abc import Sequence

ACTIVE, CANARY, SHARED = "a", "c", "="


def team_draft(active: Sequence[str], canary: Sequence[str], seed: str, depth: int) -> tuple[list[str], str]:
    """Up to `depth` ids, best first, and a letter for each: whose pick it is.

    The same `seed` draws the same coins, so that a deeper list begins with a shorter one.
    """
    drafted: dict[str, str] = {}
    coins = random.Random(seed)
    left = iter(active), iter(canary)
    ours, theirs = (next(each, None) for each in left)
    while len(drafted) < depth and (ours is not None or theirs is not None):
        if ours == theirs and ours is not None:
            drafted[ours] = SHARED
        else:
            picks = [(ours, ACTIVE), (theirs, CANARY)]
            for pick, team in picks if coins.random() < 0.5 else picks[::-1]:
                if pick is not None:
                    drafted[pick] = team
        ours, theirs = (
            pick if pick not in drafted else next((each for each in ranking if each not in drafted), None)
            for pick, ranking in zip((ours, theirs), left, strict=True)
        )
    return list(drafted)[:depth], "".join(drafted.values())[:depth]
