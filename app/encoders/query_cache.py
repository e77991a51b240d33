"""Vectors of queries that were asked before: a query that comes again costs no run of the engine.

One for all encoders of the process. The key is a hash of the encoder's digest and the text. The digest covers all that
shapes a query's vector, so no entry can be taken for another encoder's, and an entry outlives its encoder's stay in
memory without harm; what nobody asks for any more ages out. No text is kept.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from sys import getsizeof

KEY_BYTES = 32
# What the dictionary, its order and the allocator take for an entry beside key and row: 110 to 165 measured.
OVERHEAD_BYTES = 160


def cache_key(digest: str, text: str) -> bytes:
    """A digest holds no newline, so no two pairs are written alike."""
    return blake2b(f"{digest}\n{text}".encode(errors="surrogatepass"), digest_size=KEY_BYTES).digest()


class QueryCache:
    """At most `max_bytes` of rows of bytes, all overhead counted; 0 keeps none. Thread-safe.

    The rows are immutable and their own: none is a part of a larger array that would stay with it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self._rows: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def holds(self, key: bytes) -> bool:
        """Counted as no use of it."""
        return key in self._rows

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The rows there are, by key."""
        with self._lock:
            found = {key: self._rows[key] for key in keys if key in self._rows}
            for key in found:
                self._rows.move_to_end(key)
            hits = sum(key in found for key in keys)
            self.hits += hits
            self.misses += len(keys) - hits
        return found

    def keep(self, rows: Mapping[bytes, bytes]) -> None:
        """Take in rows by key; the least recently asked leave for them. A row over the whole budget is not kept."""
        with self._lock:
            for key, row in rows.items():
                if _size(key, row) <= self.max_bytes:
                    self._keep(key, row)

    def _keep(self, key: bytes, row: bytes) -> None:
        self.nbytes += _size(key, row)
        if (before := self._rows.pop(key, None)) is not None:
            self.nbytes -= _size(key, before)
        self._rows[key] = row
        while self.nbytes > self.max_bytes:
            self.nbytes -= _size(*self._rows.popitem(last=False))


def _size(key: bytes, row: bytes) -> int:
    return getsizeof(key) + getsizeof(row) + OVERHEAD_BYTES
