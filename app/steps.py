"""Steps of a request that take time, told to whoever keeps them as spans (`app.observe.traces`): to nobody, as a rule.

What is told to nobody costs a look at a context variable. A thread tells of the request whose context it was given.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

EMBED_QUERIES = "embed queries"
EMBED_PASSAGES = "embed passages"
SEARCH_PASSAGES = "search passages"
STORE_PASSAGES = "store passages"
OF_THE_STORE = frozenset({SEARCH_PASSAGES, STORE_PASSAGES})

Attributes = Mapping[str, str | int | float | bool]


class Step(Protocol):
    def within(self, name: str, attributes: Attributes) -> AbstractContextManager[None]:
        """A step of this one, from the block's beginning to its end."""

    def tell(self, attributes: Attributes) -> None: ...


_open: ContextVar[Step | None] = ContextVar("adiabat_step", default=None)
_TO_NOBODY = nullcontext()


def step(name: str, attributes: Attributes) -> AbstractContextManager[None]:
    """One that takes as long as the block; `tell` adds to it."""
    within = _open.get()
    return _TO_NOBODY if within is None else within.within(name, attributes)


def tell(attributes: Attributes) -> None:
    """Of the innermost step that is open."""
    if (innermost := _open.get()) is not None:
        innermost.tell(attributes)


@contextmanager
def opened(ours: Step | None) -> Iterator[None]:
    """What is told in this block is told to `ours`."""
    token = _open.set(ours)
    try:
        yield
    finally:
        _open.reset(token)
