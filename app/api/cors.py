"""What a page of an origin in ADIABAT_CORS_ORIGINS may send and read. Without that setting there is no CORS at all.

No cookies: such a page brings a key of its own, and one with the scope `search` is what a page can keep.
"""

from typing import Any

CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "PUT", "DELETE"],
    "allow_headers": ["Authorization", "Content-Type", "If-Match", "Idempotency-Key", "Last-Event-ID", "X-Request-Id"],
    "expose_headers": ["ETag", "Location", "Retry-After", "X-Request-Id"],
    "allow_credentials": False,
    "max_age": 600,
}
