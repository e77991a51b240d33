"""Log records as one line of JSON each, or as text for a terminal, with what a request or a job bound to them.

Knows no web and no figures: the service and the trainer log alike.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]
Fields = dict[str, Any]

QUIETER = ("alembic", "httpx", "httpcore", "sentence_transformers")

_bound: ContextVar[Fields | None] = ContextVar("adiabat_log_fields", default=None)


def install(format: LogFormat, level: LogLevel) -> None:
    """Take over the process's logging, Python's warnings included; everything goes to standard error."""
    text = format == "text" or (format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for library in QUIETER:
        logging.getLogger(library).setLevel(logging.WARNING)


@contextmanager
def bound(**fields: Any) -> Iterator[Fields]:
    """Every record logged in this block carries `fields`, and what `note` adds to them meanwhile."""
    ours = {**(_bound.get() or {}), **fields}
    token = _bound.set(ours)
    try:
        yield ours
    finally:
        _bound.reset(token)


def note(**fields: Any) -> None:
    """Add to the innermost `bound` block, if there is one. Threads that work for a request share its fields."""
    if (ours := _bound.get()) is not None:
        ours.update(fields)


def noted(name: str) -> Any:
    """A bound field, or None."""
    return (_bound.get() or {}).get(name)


class JsonFormatter(logging.Formatter):
    """`fields` of a record (`extra={"fields": …}`) come last; they repeat what its message says to people."""

    def format(self, record: logging.LogRecord) -> str:
        line: Fields = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_bound.get() or {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()
        except TypeError:  # half a surrogate pair, as in a file name that is no UTF-8
            return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """One line a record but for tracebacks: what a stranger sent cannot pretend to be another record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        pairs = "".join(f" {name}={value}" for name, value in (_bound.get() or {}).items())
        return (super().formatMessage(record) + pairs).replace("\r", "\\r").replace("\n", "\\n")
