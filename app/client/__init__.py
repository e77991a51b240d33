"""The Python client, synchronous and asynchronous; the command line stands on it.

with AdiabatClient("http://127.0.0.1:8000") as client:
    client.upsert_passages([{"id": "1", "text": "A smoker calms a colony."}])
    print(client.search("how to keep bees quiet").hits[0].text)
"""

from app.client.asynchronous import AsyncAdiabatClient
from app.client.common import DEFAULT_URL, FINISHED, ApiError, Unreachable
from app.client.synchronous import AdiabatClient

__all__ = ["DEFAULT_URL", "FINISHED", "AdiabatClient", "ApiError", "AsyncAdiabatClient", "Unreachable"]
