"""A service with passages in it, for the libraries to find."""

import pytest

from tests.conftest import Service

GERMAN = {"must": [{"key": "lang", "match": {"value": "de"}}]}


@pytest.fixture
def filled(service: Service) -> Service:
    service.client.upsert_passages(
        [
            {"id": "a", "title": "pump", "text": "the water pump leaks", "metadata": {"lang": "en"}},
            {"id": "b", "text": "die wasser pumpe", "metadata": {"lang": "de"}},
            {"id": "c", "text": "pain in the heart", "metadata": {"lang": "en"}},
        ]
    )
    return service
