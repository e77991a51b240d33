"""Calls to a Qdrant server: how it is reached, what is tried again, and what it says in our words."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
from grpc import RpcError, StatusCode
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.addresses import shown
from app.errors import InvalidField, Unavailable
from app.passages.index_space import IndexSpace
from app.settings import Settings

Result = TypeVar("Result")

INDEX_SPACE = "adiabat_index_space"
COLLECTION_ID = "adiabat_collection_id"

# Before a call is made again; each a half more or less, by lot. All may be but the making of a collection: points are
# written under ids of their own, so the same again changes nothing.
BACKOFF_S = (0.1, 0.3)
AGAIN = (429, 502, 503)


def connect(url: str, api_key: str | None = None, timeout_s: int = 30, grpc_port: int | None = None) -> QdrantClient:
    """`url` of a server, or ":memory:". Nothing is sent yet. With `grpc_port` points go by gRPC."""
    if url == ":memory:":
        return QdrantClient(":memory:")
    return QdrantClient(
        url=url,
        api_key=api_key,
        timeout=timeout_s,
        prefer_grpc=grpc_port is not None,
        grpc_port=grpc_port or 0,
        check_compatibility=False,  # it would warn, not fail; opening the collection says what is wrong
    )


def client_of(settings: Settings, url: str) -> QdrantClient:
    """As the settings have it for their server."""
    return connect(url, settings.qdrant_api_key, settings.qdrant_timeout_s, settings.qdrant_grpc_port)


def collection_id(client: QdrantClient, collection: str) -> str | None:
    """What tells the collection from one of the same name on another server; None where it has none, or is not there.

    A collection has none that was made before there were ids. Raises `Unavailable`.
    """
    with in_our_words(client):
        if not client.collection_exists(collection):
            return None
        return (client.get_collection(collection).config.metadata or {}).get(COLLECTION_ID)


def recorded_index_space(client: QdrantClient, collection: str) -> IndexSpace | None:
    """None where there is no such collection, or it is not ours. Raises `Unavailable`."""
    with in_our_words(client):
        if not client.collection_exists(collection):
            return None
        recorded = (client.get_collection(collection).config.metadata or {}).get(INDEX_SPACE)
        return None if recorded is None else IndexSpace.from_dict(recorded)


def patiently(call: Callable[[], Result]) -> Result:
    """`call`, which speaks in our words, and twice more where the server cannot be reached."""
    for pause_s in BACKOFF_S:
        try:
            return call()
        except Unavailable as error:
            if not _may_pass(error.__cause__):
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.5))  # nothing to be guessed
    return call()


def _may_pass(error: BaseException | None) -> bool:
    """Whether the same call may be answered in a moment. One that timed out has waited long enough."""
    if isinstance(error, ResponseHandlingException):
        return not isinstance(error.source, httpx.TimeoutException)
    if isinstance(error, RpcError):
        return error.code() is StatusCode.UNAVAILABLE
    if isinstance(error, ResourceExhaustedResponse):  # 429 that says when
        return True
    return isinstance(error, UnexpectedResponse) and error.status_code in AGAIN


@contextmanager
def in_our_words(client: QdrantClient) -> Iterator[None]:
    try:
        yield
    except ResponseHandlingException as error:
        url = shown(str(client.init_options.get("url")))
        raise Unavailable(
            f"The Qdrant server at {url} does not answer ({error.source}): start it, or correct ADIABAT_QDRANT_URL."
        ) from error
    except UnexpectedResponse as error:
        wrong = error.status_code in (400, 422)
        raise _refused(wrong, error.status_code, error.content.decode(errors="replace")) from error
    except ResourceExhaustedResponse as error:
        raise Unavailable(f"The Qdrant server has too much to do: {error}") from error
    except RpcError as error:
        raise _refused(error.code() is StatusCode.INVALID_ARGUMENT, error.code().name, error.details()) from error


def _refused(wrong: bool, code: object, said: str) -> Exception:
    if wrong:
        return InvalidField("filter", f"the Qdrant server refuses the request: {said[:300]}")
    return Unavailable(f"The Qdrant server answered {code}: {said[:300]}")
