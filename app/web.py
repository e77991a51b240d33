"""HTTP/1.1 as the service speaks it: uvicorn's protocol, held to limits that it has not.

A head that is too long or comes too slowly, a body that stops coming, and an answer that nobody takes are given up at
the cost of a look at the clock a few times in `request_timeout_s`: nothing is paid per request. A slow body's refusal
is the application's to answer (`app.api.limits`), since it has begun; a head's is answered here.
"""

import socket
import time
from asyncio import Transport
from functools import partial
from typing import Any, ClassVar

from httptools import HttpParserError
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.limits import SLOW
from app.api.problems import as_body, status_of
from app.arrivals import Arrivals
from app.errors import AdiabatError, HeadersTooLarge, TooSlow
from app.settings import Settings

LOOKS = 4  # within the timeout
# What the system keeps unsent of an answer: with its own megabytes a slow reader would seem to take nothing for long.
UNSENT, UNSENT_BYTES = getattr(socket, "TCP_NOTSENT_LOWAT", None), 131_072
LEAST_BYTES = 256  # of a body, or of an answer that was written, within the timeout
# What chunked bodies may have around their bytes: a chunk of one byte has five, and there may be some headers behind.
AROUND_EACH_BYTE, AROUND_ALL = 8, 65_536

NOT_HTTP = "What was sent is not HTTP/1.1 that can be read; send a request such as 'GET /version HTTP/1.1'."


def web_options(settings: Settings) -> dict[str, Any]:
    """What `uvicorn.Config` is to be told."""
    proxies = list(settings.trusted_proxies)
    fields = {
        "max_header_bytes": settings.max_header_bytes,
        "timeout_s": settings.request_timeout_s,
        "arrivals": Arrivals(),
    }
    return {
        "http": type("LimitedProtocol", (LimitedProtocol,), fields),
        "ws": "none",
        "proxy_headers": bool(proxies),
        "forwarded_allow_ips": proxies,
    }


class LimitedProtocol(HttpToolsProtocol):
    max_header_bytes: ClassVar[int]
    timeout_s: ClassVar[float]
    arrivals: ClassVar[Arrivals]

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if UNSENT is not None and (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, UNSENT, UNSENT_BYTES)
        self._in_head, self._in_body, self._resting = True, False, False
        self._between = True  # requests: what comes next begins one
        self._waits, self._stops = False, False  # for its turn to begin; and ends with the answer to what waits
        self._head_bytes = self._fields_bytes = 0
        self._raw_bytes = self._body_bytes = self._marked_bytes = 0
        self._unsent_bytes = 0
        self._marked_at = self._unsent_at = time.monotonic()
        self._refusal: AdiabatError | None = None
        self._running: RequestResponseCycle | None = None
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Where requests were sent one behind the other, uvicorn tells the last one alone, and it is another's answer
        that would be written."""
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if not self._between or self.arrivals.may_begin(self.loop):
            self._received(data)
        else:
            self._waits = True
            self.transport.pause_reading()
            self._unset_keepalive_if_required()  # it rests no more
            self.arrivals.wait(self.client and self.client[0], partial(self._arrived, data))

    def _arrived(self, data: bytes) -> None:
        self._waits = False
        if self.transport.is_closing():
            return
        self._marked_at = time.monotonic()  # until now it waited for us
        self.transport.resume_reading()
        self._received(data)
        if self._stops:
            super().shutdown()

    def on_response_complete(self) -> None:
        """Of an earlier request, where several were sent one behind the other."""
        super().on_response_complete()
        if self._waits:
            self._unset_keepalive_if_required()

    def shutdown(self) -> None:
        """Where the service stops. What has come is answered, though it was not read yet."""
        if self._waits:
            self._stops = True
        else:
            super().shutdown()

    def _received(self, data: bytes) -> None:
        was_in_body = self._in_body
        self._raw_bytes += len(data)
        super().data_received(data)
        if self._in_head and not was_in_body:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_header_bytes:
                self._refuse(self._too_large())
        elif self._raw_bytes > (1 + AROUND_EACH_BYTE) * self._body_bytes + AROUND_ALL and was_in_body and self._in_body:
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_body, self._resting = True, False, False
        self._between = False
        self._head_bytes = self._fields_bytes = 0
        self._marked_at = time.monotonic()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_field(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_field(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._raw_bytes = self._body_bytes = self._marked_bytes = 0
        self._marked_at = time.monotonic()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._between = False, True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Of whatever the parser stumbled over, our own refusals among them."""
        if self._refusal is None:
            self._answer(as_body(400, "http-error", NOT_HTTP), 400)
        else:
            self._refuse(self._refusal)

    def _count_field(self, size: int) -> None:
        """Headers behind a chunked body count too: they are kept like the others."""
        self._fields_bytes += size
        if self._fields_bytes > self.max_header_bytes:
            self._refusal = self._too_large()
            raise HttpParserError("the head is over its limit")

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The request's line and headers are over the limit of {self.max_header_bytes} bytes; send fewer, or raise "
            "ADIABAT_MAX_HEADER_BYTES."
        )

    def _look_later(self) -> None:
        self._looks_at = time.monotonic() + self.timeout_s / LOOKS
        self.loop.call_later(self.timeout_s / LOOKS, self._look)

    def _look(self) -> None:
        if self not in self.connections:
            return
        now = time.monotonic()
        late_s = now - self._looks_at
        if late_s > self.timeout_s / LOOKS:  # we were busy: what came meanwhile lies unread
            self._marked_at += late_s
            self._unsent_at += late_s
        elif self._waits:
            pass  # for us, and not we for it
        elif self._is_untaken(now):
            self.transport.abort()
        elif self.transport.is_closing():
            pass  # what was written is still to be taken
        elif self._in_head:
            self._look_at_head(now)
        elif self.cycle.response_complete:
            self._look_at_rest(now)
        elif self._in_body:
            self._look_at_body(now)
        self._look_later()

    def _is_untaken(self, now: float) -> bool:
        """Whether nobody takes what was written: a client that stops reading would keep its answer in memory."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or abs(unsent - self._unsent_bytes) >= LEAST_BYTES:
            self._unsent_bytes, self._unsent_at = unsent, now
            return False
        return now - self._unsent_at >= self.timeout_s

    def _look_at_rest(self, now: float) -> None:
        """What comes after an answer and begins no request, such as the rest of a body that was refused.

        Somebody who is still sending it would not hear the answer if the connection broke at once; but any byte puts
        uvicorn's own end of it off, for ever.
        """
        if not self._resting:
            self._resting, self._marked_at = True, now
        elif now - self._marked_at >= self.timeout_s:
            self.transport.close()

    def _look_at_head(self, now: float) -> None:
        if now - self._marked_at < self.timeout_s:
            return
        if self._raw_bytes == 0:  # a connection that was opened and never used
            self.transport.close()
        else:
            self._refuse(
                TooSlow(f"The request's headers were not whole within {self.timeout_s:g} s, and it was given up.")
            )

    def _look_at_body(self, now: float) -> None:
        if self._body_bytes - self._marked_bytes >= LEAST_BYTES or self.flow.read_paused or self.cycle.body:
            self._marked_bytes, self._marked_at = self._body_bytes, now
        elif now - self._marked_at >= self.timeout_s:
            self.cycle.scope[SLOW] = self.timeout_s  # type: ignore[literal-required]
            self.cycle.message_event.set()

    def _refuse(self, error: AdiabatError) -> None:
        status = status_of(error)
        self._answer(as_body(status, error.slug, error.detail), status)

    def _answer(self, body: bytes, status: int) -> None:
        """Where an earlier request of the connection is being answered, the break alone has to say it."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(
                body
            )
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
