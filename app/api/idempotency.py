"""`Idempotency-Key`: a call that makes something makes it once, however often its request arrives."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated

import orjson
from fastapi import Header, Response
from starlette.concurrency import run_in_threadpool

from app.api.deps import Parts
from app.errors import AdiabatError, IdempotencyKeyInUse
from app.plainly import plainly
from app.registry import Answer, Keep

WAIT_S = 60.0  # how long a repeated request waits for the first one before it is told to come again
POLL_S = 0.25

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="The client's own name for this request. The same key with the same body is done once and answered "
        "the same for 24 hours; with another body it is refused. What was refused may be repeated under its key.",
    ),
    plainly("must be 1 to 255 characters of ASCII without spaces"),
]


async def once(parts: Parts, call: str, key: str | None, sent: bytes, work: Callable[[Keep], Answer]) -> Response:
    """The answer of `work`, run in a thread; with a `key` only if it has not answered before.

    `work` keeps its answer in the transaction that makes what it answers: killed at any moment, the service has made
    nothing or knows the answer. `sent` is all of the request that matters. Raises `IdempotencyKeyReused` where the key
    came with something else.
    """
    if key is None:
        return _response(await run_in_threadpool(work, lambda *_: None))
    fingerprint = hashlib.sha256(sent).hexdigest()
    until = time.monotonic() + WAIT_S
    while True:
        try:
            return _response(await run_in_threadpool(_once, parts, call, key, fingerprint, work))
        except IdempotencyKeyInUse:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(POLL_S)


def _once(parts: Parts, call: str, key: str, fingerprint: str, work: Callable[[Keep], Answer]) -> Answer:
    keys = parts.registry.idempotency
    if (answered := keys.begin(call, key, fingerprint)) is not None:
        return answered
    try:
        return work(partial(keys.finish, call, key))
    except BaseException:
        with suppress(AdiabatError):  # what refused the call is what the caller must hear of
            keys.forget(call, key)
        raise


def _response(answer: Answer) -> Response:
    body = orjson.dumps(answer.body)
    return Response(body, answer.status, headers={"Location": answer.location}, media_type="application/json")
