"""Giving memory back to the system.

The C library keeps what is freed for its next request, in arenas that threads share. Encoders are loaded and let go on
threads of their own: over 50 loads of MiniLM 140 MB came to lie about in arenas that nobody asked of any more.
"""

import ctypes
from collections.abc import Callable


def _trim() -> Callable[[int], int] | None:
    """glibc's; other C libraries give back by themselves, or not at all."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


def give_back() -> None:
    """A millisecond, without the interpreter's lock."""
    if trim := _trim():
        trim(0)
