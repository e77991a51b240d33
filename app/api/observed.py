"""The outermost layer, plain ASGI: ids of the request, its line in the access log, its place in the figures.

A bug ends here too, so that its answer carries the ids and is counted like any other.
"""

import logging
import re
import time
import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.observe.logs import bound
from app.observe.metrics import UNMATCHED, Metrics
from app.observe.trace import Trace, parse
from app.spans import opened

if TYPE_CHECKING:  # it imports the SDK, which few have asked for
    from app.observe.traces import RequestSpan, Traces

log = logging.getLogger("adiabat.access")

Header = tuple[bytes, bytes]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
CLIENT_CLOSED = 499  # no status of HTTP: the client left before there was one
# Asked every few seconds by machines: in the log only where they fail, or at ADIABAT_LOG_LEVEL=debug.
QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})


class Observed:
    """With `traces` each request is a span, but for what machines ask every few seconds."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: "Traces | None" = None) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id, trace = _identify(scope["headers"])
        span = self._begin(scope, trace)
        trace = trace if span is None else span.trace
        told = _told(request_id, trace)
        status = CLIENT_CLOSED

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *told]
            await send(message)

        traced = {"trace_id": trace.trace_id, "span_id": trace.span_id} if trace else {}
        with bound(request_id=request_id, **traced) as noted, opened(span.sampled) if span else nullcontext():
            self._metrics.in_flight.inc()
            try:
                await self._app(scope, receive, answering)
            except ClientDisconnect:
                pass
            except Exception as error:
                if status != CLIENT_CLOSED:  # half an answer is out: only breaking the connection says that it is wrong
                    raise
                await problems.of_bug(error, request_id)(scope, receive, answering)
            finally:
                self._metrics.in_flight.dec()
                self._record(scope, status, time.perf_counter() - started)
                if span is not None:
                    span.end(scope["method"], _template(scope), status, noted)

    def _begin(self, scope: Scope, caller: Trace | None) -> "RequestSpan | None":
        if self._traces is None or scope["path"] in QUIET:
            return None
        state = [value.decode("latin-1") for name, value in scope["headers"] if name == b"tracestate"]
        return self._traces.request(scope["method"], scope["path"], caller, state)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        template = _template(scope) or UNMATCHED
        method: str = scope["method"]
        self._metrics.answered(method, template, status, seconds)
        level = logging.DEBUG if template in QUIET and status < 400 else logging.INFO
        if log.isEnabledFor(level):
            # Without the query string, which holds what people search for.
            path = scope["raw_path"].decode("latin-1")
            ms = round(seconds * 1000, 3)
            fields = {"method": method, "route": template, "status": status, "duration_ms": ms}
            log.log(level, "%s %s %d in %s ms", method, path, status, ms, extra={"fields": fields})


def _template(scope: Scope) -> str | None:
    found: str | None = getattr(scope.get("route"), "path_format", None)
    return found


def _identify(headers: list[Header]) -> tuple[str, Trace | None]:
    """The caller's request id where it is a sane one, else one made here; and the trace it belongs to, if any."""
    request_id = b""
    traceparents = []
    for name, value in headers:
        if name == b"x-request-id":
            request_id = value
        elif name == b"traceparent":
            traceparents.append(value)
    sane = REQUEST_ID.fullmatch(request_id)
    trace = parse(traceparents[0].decode("latin-1")) if len(traceparents) == 1 else None
    return request_id.decode() if sane else uuid.uuid4().hex, trace


def _told(request_id: str, trace: Trace | None) -> list[Header]:
    told = [(b"x-request-id", request_id.encode())]
    return [*told, (b"traceresponse", trace.response.encode())] if trace else told
