"""What a body may be, as plain ASGI: refused by Content-Length before reading, and cut off while reading.

Cut off where it grows over its limit, and where the server (`app.web`) has found that it does not come any more.
"""

from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import is_openai, of_error
from app.errors import AdiabatError, TooLarge, TooSlow

NDJSON = "application/x-ndjson"
SLOW = "adiabat.slow"  # in the scope: the seconds that a body was waited for in vain


def content_type(scope: Scope) -> str:
    """As sent, in lower case; empty where none was."""
    given: bytes = dict(scope["headers"]).get(b"content-type", b"")
    return given.decode("latin-1").lower()


def is_ndjson(kind: str) -> bool:
    """Whether a body of this content type is lines of JSON."""
    return kind.partition(";")[0].strip() == NDJSON


class BodyLimit:
    """`limit_for(path, content_type)` gives the bytes that such a request may carry, and the setting that says so.

    None: any number.
    """

    def __init__(self, app: ASGIApp, limit_for: Callable[[str, str], tuple[int, str] | None]) -> None:
        self._app = app
        self._limit_for = limit_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit, setting = self._limit_for(scope["path"], content_type(scope)) or (None, "")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if limit is not None and length.isdigit() and int(length) > limit:
            await _answer(_too_large(limit, setting), scope)(scope, receive, send)
            return
        read, refusal, answered = 0, None, False

        async def watched() -> Message:
            nonlocal read, refusal
            message = await receive()
            read += len(message.get("body", b""))
            if limit is not None and read > limit:
                refusal = _too_large(limit, setting)
            elif SLOW in scope:
                refusal = _too_slow(scope[SLOW])
            if refusal is not None:
                raise _CutOff
            return message

        async def answering(message: Message) -> None:
            # The framework makes its own answer of the exception that ended the reading: ours goes out instead.
            nonlocal answered
            if refusal is None:
                answered = True
                await send(message)

        with suppress(_CutOff):
            await self._app(scope, watched, answering)
        if refusal is not None and not answered:
            await _answer(refusal, scope)(scope, receive, send)


def _too_large(limit: int, setting: str) -> AdiabatError:
    return TooLarge(
        f"The body is over the limit of {limit} bytes for this call; send it in smaller parts, or raise {setting}."
    )


def _too_slow(waited_s: float) -> AdiabatError:
    return TooSlow(
        f"The body stopped coming: fewer than 256 bytes in {waited_s:g} s (ADIABAT_REQUEST_TIMEOUT_S), and it was "
        "given up; send it again, or in smaller parts."
    )


def _answer(error: AdiabatError, scope: Scope) -> ASGIApp:
    return of_error(error, openai=is_openai(scope["path"]))


class _CutOff(Exception):
    """The rest of the body is not read."""
