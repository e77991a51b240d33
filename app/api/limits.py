"""Body limits as plain ASGI: refused by Content-Length before reading, and cut off while reading."""

from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import is_openai, of_error
from app.errors import TooLarge

NDJSON = "application/x-ndjson"


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
        found = self._limit_for(scope["path"], content_type(scope))
        if found is None:
            await self._app(scope, receive, send)
            return
        limit, setting = found
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            await _refusal(scope, limit, setting)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise _CutOff
            return message

        async def answering(message: Message) -> None:
            # The framework makes its own answer of the exception that ended the reading: ours goes out instead.
            if read <= limit:
                await send(message)

        with suppress(_CutOff):
            await self._app(scope, counted, answering)
        if read > limit:
            await _refusal(scope, limit, setting)(scope, receive, send)


def _refusal(scope: Scope, limit: int, setting: str) -> ASGIApp:
    error = TooLarge(
        f"The body is over the limit of {limit} bytes for this call; send it in smaller parts, or raise {setting}."
    )
    return of_error(error, openai=is_openai(scope["path"]))


class _CutOff(Exception):
    """The body went over its limit while it was read."""
