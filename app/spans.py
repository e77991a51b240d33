"""Spans within a request, for whoever keeps them (`app.observe.traces`): nobody, as a rule.

What nobody keeps costs a look at a context variable. A thread's spans are of the request whose context it was given.
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


class Span(Protocol):
    def within(self, name: str, attributes: Attributes) -> AbstractContextManager[None]:
        """A span inside this one, as long as the block."""

    def tell(self, attributes: Attributes) -> None: ...


_innermost: ContextVar[Span | None] = ContextVar("adiabat_span", default=None)
_KEPT_BY_NOBODY = nullcontext()


def span(name: str, attributes: Attributes) -> AbstractContextManager[None]:
    """As long as the block, in which `tell` adds to its attributes."""
    outer = _innermost.get()
    return _KEPT_BY_NOBODY if outer is None else outer.within(name, attributes)


def tell(attributes: Attributes) -> None:
    """Of the innermost span that is open."""
    if (innermost := _innermost.get()) is not None:
        innermost.tell(attributes)


@contextmanager
def opened(ours: Span | None) -> Iterator[None]:
    """Spans of this block are within `ours`; with None nobody keeps them."""
    token = _innermost.set(ours)
    try:
        yield
    finally:
        _innermost.reset(token)
