"""Keys as callers hold them: tokens, what they open, how fast and how often. Knows no HTTP."""

from app.keys.bucket import TokenBucket
from app.keys.ring import SERVICE_KEY, Holder, KeyRing
from app.keys.secret import session_secret

__all__ = ["SERVICE_KEY", "Holder", "KeyRing", "TokenBucket", "session_secret"]
