"""What the two clients share: errors, when to try again, how an answer is read."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote

import orjson

from app import wire
from app.addresses import shown

if TYPE_CHECKING:  # what takes long to import is imported when it is needed
    import httpx
    from pydantic import BaseModel

    from app.wire.evaluations import EvaluationPublic
    from app.wire.tuning_jobs import TuningJobPublic

DEFAULT_URL = "http://127.0.0.1:8000"
FINISHED = frozenset({"succeeded", "rejected", "failed", "cancelled", "interrupted"})
LAST_EVENT = "end"
NOTHING_MORE = 204  # of a stream of events: the job has ended and all was heard
STILL_AT_IT = frozenset({"idempotency-key-in-use"})  # the first request under this key is being worked on
RETRIED = frozenset({429, 503})  # the service says: nothing was done, come again
RETRIES = 2
MAX_WAIT_S = 30.0
FIRST_WAIT_S = 0.5
CONNECT_S = 5.0
FOLLOW_RETRIES = 8
MAX_FOLLOW_WAIT_S = 8.0

Json = dict[str, Any]
Model = TypeVar("Model", bound="BaseModel")
Job = TypeVar("Job", "TuningJobPublic", "EvaluationPublic")
OnProgress = Callable[["TuningJobPublic"], None]
OnEvaluation = Callable[["EvaluationPublic"], None]
OnBytes = Callable[[int, int], None]  # how many, of how many


def connecting(timeout_s: float) -> Json:
    """How a client of httpx is made; `timeout_s` is for one call."""
    import httpx

    return {
        # Registering or activating a large encoder takes its time; connecting does not.
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_S),
        # The service ends a connection that rests for 5 s: one used in that very moment breaks, so ours end before.
        "limits": httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=3.0),
        "trust_env": False,
    }


class ApiError(Exception):
    """The service refused. `detail` says why and what mends it; `slug` never changes between releases.

    `problem` is the whole body (RFC 9457), `retry_after_s` what the service asked to wait, if it did.
    """

    def __init__(self, status: int, slug: str, detail: str, problem: Json, retry_after_s: float | None = None) -> None:
        self.status = status
        self.slug = slug
        self.detail = detail
        self.problem = problem
        self.retry_after_s = retry_after_s
        super().__init__(detail)


class Unreachable(Exception):
    """No service answers at the address."""


def refusal(status: int, content: bytes, headers: httpx.Headers) -> ApiError:
    try:
        problem = orjson.loads(content)
        if problem.get("status") == "not-ready":  # the report of /health/ready, which is no problem+json
            return ApiError(status, "not-ready", f"The service is not ready: {' '.join(problem['notes'])}", problem)
        slug, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
    except (ValueError, KeyError, TypeError, AttributeError):
        problem, slug, detail = {}, "http-error", content.decode(errors="replace")[:200] or f"status {status}"
    return ApiError(status, slug, detail, problem, _retry_after_s(headers))


def unreachable(error: httpx.TransportError, url: str, method: str, path: str, read_s: float | None) -> Unreachable:
    import httpx

    url = shown(url)
    if isinstance(error, httpx.UnsupportedProtocol):
        return Unreachable(
            f"{url!r} is no address of a service: one begins with http:// or https://, as {DEFAULT_URL}."
        )
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return Unreachable(
            f"{url} did not answer {method} {path} within {read_s:g} s; what was asked may still be going on there. "
            "Give the client a larger timeout_s, or look with 'adiabat health'."
        )
    return Unreachable(
        f"{url} does not answer ({error}): is the service running there ('adiabat serve'; a first "
        "start takes a while until it answers), and is the address right (--url or ADIABAT_URL)?"
    )


def wait_s(attempt: int, error: ApiError | httpx.TransportError, *, repeatable: bool) -> float | None:
    """Seconds until the next try, or None where there must be none.

    A refusal with 429 or 503 did nothing and may always be repeated. A connection that broke may have done its
    work: only what has the same effect twice is repeated then.
    """
    backoff = FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)
    if isinstance(error, ApiError):
        if error.status not in RETRIED and error.slug not in STILL_AT_IT:
            return None
        asked = error.retry_after_s
        return backoff if asked is None else asked if asked <= MAX_WAIT_S else None
    import httpx

    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    timed_out = isinstance(error, httpx.TimeoutException) and not never_sent
    # A service that is not there is said at once; one that restarts under a client breaks the connection first.
    return backoff if repeatable and not never_sent and not timed_out else None


def follow_wait_s(attempt: int, error: ApiError | httpx.TransportError, *, heard: bool) -> float | None:
    """The same for whoever follows events: once some were heard, a service may take half a minute to come back."""
    if attempt >= FOLLOW_RETRIES or (isinstance(error, ApiError) and error.status not in RETRIED):
        return None
    import httpx

    if not heard and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return None
    return float(min(FIRST_WAIT_S * 2**attempt, MAX_FOLLOW_WAIT_S))


def _retry_after_s(headers: httpx.Headers) -> float | None:
    said = headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else None


def parsed(model: type[Model], content: bytes) -> Model:
    from pydantic import ValidationError

    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreachable(
            f"What answers there is not a service of this version: its {model.__name__} has no usable {where!r}."
        ) from error


def event_in(line: str) -> wire.tuning_jobs.JobEventPublic | None:
    """The event in a line of a stream of events: its `data` says all that the other fields say."""
    return parsed(wire.tuning_jobs.JobEventPublic, line[6:].encode()) if line.startswith("data: ") else None


def dataset_kind(file: Path) -> str:
    return "application/x-ndjson" if file.suffix in (".jsonl", ".ndjson") else "application/zip"


def if_match(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"If-Match": f'"{generation}"'}


def quoted(part: str) -> str:
    return quote(part, safe="@")


def form_fields(fields: Json) -> dict[str, str]:
    """As a form carries them: strings as they are, everything else as JSON."""
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in fields.items()}


def open_binary(file: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """A file that is given open stays open."""
    return file.open("rb") if isinstance(file, Path) else nullcontext(file)


def without_none(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def split_key(key: str) -> Json:
    """`name@version` as the body of an activation; the service says what is wrong with it."""
    name, _, version = key.partition("@")
    return {"name": name} | ({"version": int(version) if version.isdecimal() else version} if version else {})


async def async_sleep(seconds: float) -> None:
    import asyncio  # with its network and TLS; the synchronous client needs none of it

    await asyncio.sleep(seconds)


def sync_sleep(seconds: float) -> None:
    time.sleep(seconds)


def file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            yield chunk


def ndjson_chunks(lines: Iterable[Json]) -> Iterator[bytes]:
    """Lines of JSON, many to a chunk: a chunk for each would cost a system call for each."""
    chunk = bytearray()
    for line in lines:
        chunk += orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if len(chunk) >= 2**16:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def as_parameter(filter: Json | None) -> str | None:
    """A filter as it stands in an address."""
    return None if filter is None else orjson.dumps(filter).decode()


async def async_chunks(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """An ordinary iterable as a streamed body."""
    for chunk in chunks:
        yield chunk


def sync_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield from chunks
