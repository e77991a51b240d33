"""How long work ends early: it asks a plain function at safe points and raises `Stopped`."""

from collections.abc import Callable

ShouldStop = Callable[[], bool]


class Stopped(Exception):
    """Somebody asked for the work to end; nothing it was making is kept."""


def never() -> bool:
    return False


def check(should_stop: ShouldStop) -> None:
    if should_stop():
        raise Stopped
