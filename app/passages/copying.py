"""Passages brought from one store to another with their vectors: nothing is embedded again."""

from collections.abc import Callable

from app.passages.store import PassageStore, Point

AT_ONCE = 256


def copy_passages(source: PassageStore, target: PassageStore, copied: Callable[[int], None]) -> int:
    """How many were copied; `copied` hears it as it goes.

    The same again replaces what is there by the same, so that a copy that broke may be repeated. Both must be of one
    index space, which each of them insists on when it is opened. Raises `Unavailable`.
    """
    done, cursor = 0, None
    while True:
        found, cursor = source.page(cursor, AT_ONCE, with_vectors=True)
        points = [
            Point(passage=one.passage, content_hash=one.content_hash, vector=one.vector)
            for one in found
            if one.vector is not None
        ]
        if points:
            target.upsert(points)
        done += len(points)
        copied(done)
        if cursor is None:
            return done
