"""W3C Trace Context (https://www.w3.org/TR/trace-context/): read a caller's `traceparent`, answer `traceresponse`.

Unless spans are asked for (`traces`), the service starts no traces: a request without a valid `traceparent` has none.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_RANDOM = 0x02  # the flag that speaks of the trace id; "sampled" would say that we keep spans
_FORBIDDEN_VERSION = "ff"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")  # the first that is set counts
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Identifiers in lower-case hex. `span_id` is this request's own, made here. `kept`: there is a span of that id, or
    a sampler left it out, as the flags say."""

    trace_id: str
    parent_id: str = ""  # none where the trace begins here
    flags: int
    kept: bool = False
    span_id: str = field(default_factory=lambda: os.urandom(8).hex())

    @property
    def response(self) -> str:
        """The value of `traceresponse` (an editor's draft of the same group): which span answered."""
        flags = self.flags if self.kept else self.flags & _RANDOM
        return f"00-{self.trace_id}-{self.span_id}-{flags:02x}"


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


def spans_wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables say where spans go. Raises `ValueError` where they cannot be followed."""
    told = {name: environment[name].strip() for name in environment if name.startswith("OTEL_")}
    exporter = told.get("OTEL_TRACES_EXPORTER", "")
    variable = next((name for name in _ENDPOINTS if told.get(name)), None)
    if told.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise ValueError(f"OTEL_TRACES_EXPORTER is {exporter!r}; spans are sent by 'otlp', or not at all ('none')")
    if variable is None and not exporter:
        return False
    protocol = next((name for name in _PROTOCOLS if told.get(name)), None)
    if protocol is not None and told[protocol] != _PROTOCOL:
        raise ValueError(f"{protocol} is {told[protocol]!r}; spans are sent by {_PROTOCOL}, to port 4318 as a rule")
    if variable is not None:
        parts = urlsplit(told[variable])
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{variable} is {told[variable]!r}; an address such as http://collector:4318 is expected")
    return True
