"""Spans of requests and of what takes time in them, sent to an OpenTelemetry collector as the `OTEL_*` variables say.

Needs the extra `otel`, and is imported only where those variables ask for it (`trace.spans_wanted`). The provider is
this service's own: whatever other libraries know of OpenTelemetry stays as it is.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from app import __version__
from app.observe.metrics import METHODS
from app.observe.trace import Trace
from app.spans import OF_THE_STORE, Attributes, opened

NAME = "adiabat"
CLOSE_S = 2.0
OF_THE_TRACE = ("trace_id", "span_id")  # noted fields that are the span's own


class Traces:
    """`outside`: the store is a Qdrant server, which a picture of the services shows as another one."""

    def __init__(self, *, outside: bool) -> None:
        # Ends where we end it: at the interpreter's exit the log has gone already.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter()
        logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)  # anybody may send a bad tracestate
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer(NAME, __version__)
        self._kinds = dict.fromkeys(OF_THE_STORE, SpanKind.CLIENT) if outside else {}

    def request(self, method: str, path: str, caller: Trace | None, state: Sequence[str]) -> "RequestSpan":
        """Begun; in the caller's trace, with its `tracestate` headers, or the first of its own."""
        context = None if caller is None else set_span_in_context(NonRecordingSpan(_context(caller, state)))
        attributes = {"http.request.method": method, "url.path": path}
        name = method if method in METHODS else "HTTP"  # until its route is known
        span = self._tracer.start_span(name, context, SpanKind.SERVER, attributes)
        return RequestSpan(self._tracer, span, self._kinds)

    def close(self) -> None:
        """Sends what waits; a collector that does not answer is not asked again after `CLOSE_S`."""
        giving_up = threading.Timer(CLOSE_S, self._exporter.shutdown)
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


class KeptSpan:
    def __init__(self, tracer: Tracer, span: Span, kinds: Mapping[str, SpanKind]) -> None:
        self._tracer = tracer
        self._span = span
        self._kinds = kinds

    @contextmanager
    def within(self, name: str, attributes: Attributes) -> Iterator[None]:
        kind = self._kinds.get(name, SpanKind.INTERNAL)
        span = self._tracer.start_span(name, set_span_in_context(self._span), kind, dict(attributes))
        if name in OF_THE_STORE:
            span.set_attribute("db.system.name", "qdrant")
        try:
            with opened(KeptSpan(self._tracer, span, self._kinds)):
                yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)  # its words may hold what somebody searched for
            if not isinstance(error, asyncio.CancelledError):
                span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()

    def tell(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))


class RequestSpan(KeptSpan):
    @property
    def trace(self) -> Trace:
        context = self._span.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        return Trace(trace_id=trace_id, span_id=span_id, flags=int(context.trace_flags), kept=True)

    @property
    def sampled(self) -> "RequestSpan | None":
        """Itself, unless the sampler left it out."""
        return self if self._span.is_recording() else None

    def end(self, method: str, route: str | None, status: int, noted: Mapping[str, Any]) -> None:
        """`route` is the template, None where nothing matched; `noted` what the request's line in the log says too."""
        if route is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        fields = {name: value for name, value in noted.items() if name not in OF_THE_TRACE and value is not None}
        self._span.set_attributes({f"adiabat.{name}": value for name, value in fields.items()})
        if status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _resource() -> Resource:
    """The variables' words count; without a name in them it is ours."""
    told = Resource.create({SERVICE_VERSION: __version__})
    unnamed = str(told.attributes[SERVICE_NAME]).startswith("unknown_service")
    return told.merge(Resource({SERVICE_NAME: NAME})) if unnamed else told


def _context(caller: Trace, state: Sequence[str]) -> SpanContext:
    return SpanContext(
        int(caller.trace_id, 16),
        int(caller.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(caller.flags),
        trace_state=TraceState.from_header(list(state)),
    )
