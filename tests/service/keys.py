"""A service that asks for a key, and clients that hold one of each scope."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.conftest import Service

SERVICE_KEY = "correct horse battery"
SCOPES = ("search", "write", "admin")


def as_bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


@contextmanager
def holding(service: Service, key: str | None) -> Iterator[httpx.Client]:
    """A program that shows this key, or none."""
    with httpx.Client(base_url=service.url, trust_env=False, headers=as_bearer(key), timeout=60) as http:
        yield http


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Its status and slug."""
    return answer.status_code, str(answer.json()["type"]).rpartition(":")[2]
