"""Passages brought from one store to another with their vectors: nothing is embedded again."""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from app.errors import Unavailable
from app.passages.payload import payload_hash
from app.passages.store import Hashes, PassageStore, Point, StoredPassage

AT_ONCE = 256
SAMPLED = 200  # passages that are read back
SAME = 1e-5  # how far a component may be off: fp32 through JSON and back, normalised again at most


def copy_passages(source: PassageStore, target: PassageStore, copied: Callable[[int], None]) -> int:
    """How many `source` has; `copied` hears how many of them were looked at as it goes.

    What `target` has already is left alone, so a copy that broke goes on where it is repeated. Both must be of one
    index space, which each of them insists on when it is opened. Raises `Unavailable`, also where `target` has fewer
    afterwards, or a sample that is read back is not as it was.
    """
    done, cursor, sample, lot = 0, None, list[StoredPassage](), Random(0)
    while True:
        found, cursor = source.page(cursor, AT_ONCE, with_vectors=True)
        _write(target, found)
        for number, one in enumerate(found, done):  # a reservoir: each passage has the same chance
            at = number if number < SAMPLED else lot.randint(0, number)
            if at < SAMPLED:
                sample[at : at + 1] = [one]
        done += len(found)
        copied(done)
        if cursor is None:
            break
    if (there := target.count()) < done:
        raise Unavailable(f"{done} passages were copied, and {there} are there: repeat the command.")
    _require_same(target, sample)
    return done


def _write(target: PassageStore, found: Sequence[StoredPassage]) -> None:
    there = target.content_hashes([one.passage.id for one in found])
    points = [
        Point(passage=one.passage, content_hash=one.content_hash, vector=one.vector)
        for one in found
        if one.vector is not None and there.get(one.passage.id) != _hashes(one)
    ]
    if points:
        target.upsert(points)


def _hashes(one: StoredPassage) -> Hashes:
    return Hashes(one.content_hash, payload_hash(one.passage))


def _require_same(target: PassageStore, sample: Sequence[StoredPassage]) -> None:
    there = {one.passage.id: one for one in target.fetch([one.passage.id for one in sample], with_vectors=True)}
    for one in sample:
        copy = there.get(one.passage.id)
        if copy is None or copy.passage != one.passage or not _near(copy, one):
            raise Unavailable(
                f"The passage {one.passage.id!r} is not in the copy as it was sent: nothing else may write there "
                "meanwhile; repeat the command."
            )


def _near(copy: StoredPassage, one: StoredPassage) -> bool:
    if copy.vector is None or one.vector is None:
        return False
    return bool(np.abs(copy.vector - one.vector).max() <= SAME)
