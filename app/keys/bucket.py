"""A token bucket: so many at once, then so many a second. For one thread."""

import time


class TokenBucket:
    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._held = float(burst)
        self._at = time.monotonic()

    def take(self) -> float:
        """0 where one was taken, else the seconds until there is one."""
        now = time.monotonic()
        self._held = min(self._burst, self._held + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._held >= 1:
            self._held -= 1
            return 0.0
        return (1 - self._held) / self._rate_per_s
