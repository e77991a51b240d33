"""W3C Trace Context (https://www.w3.org/TR/trace-context/): read a caller's `traceparent`, answer `traceresponse`.

The service keeps no spans of its own, so it starts no traces: a request without a valid `traceparent` has none.
"""

import os
import re
from dataclasses import dataclass, field

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_RANDOM = 0x02  # the flag that speaks of the trace id; "sampled" would say that we keep spans
_FORBIDDEN_VERSION = "ff"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Identifiers in lower-case hex. `span_id` is this request's own, made here."""

    trace_id: str
    parent_id: str
    flags: int
    span_id: str = field(default_factory=lambda: os.urandom(8).hex())

    @property
    def response(self) -> str:
        """The value of `traceresponse` (an editor's draft of the same group): which span answered."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags & _RANDOM:02x}"


def parse(traceparent: str) -> Trace | None:
    """None where it is not valid. A later version is read as far as this one goes, which is what the standard asks."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == _FORBIDDEN_VERSION or (version == "00" and more is not None):
        return None
    if not int(trace_id, 16) or not int(parent_id, 16):
        return None
    return Trace(trace_id=trace_id, parent_id=parent_id, flags=int(flags, 16))
