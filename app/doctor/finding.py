"""What a check found: how bad, one sentence, and what mends it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, but not as well or not as meant
    FAIL = "fail"  # the service does not start, or does not do what it is for


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    check: str
    level: Level
    said: str
    mend: str | None = None


def ok(check: str, said: str) -> Finding:
    return Finding(check=check, level=Level.OK, said=said)


def warn(check: str, said: str, mend: str) -> Finding:
    return Finding(check=check, level=Level.WARN, said=said, mend=mend)


def fail(check: str, said: str, mend: str) -> Finding:
    return Finding(check=check, level=Level.FAIL, said=said, mend=mend)
