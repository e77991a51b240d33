"""What the commands share: the connection options, output for people and for programs, progress."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from app.addresses import shown
from app.client import DEFAULT_URL, AdiabatClient, Unreachable
from app.errors import BadInput
from app.settings import NOT_SENDABLE, is_sendable, unknown

# What they print is text of users and passages: brackets and colons in it mean nothing.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

Url = Annotated[str, typer.Option(envvar="ADIABAT_URL", help="Address of the service.")]
ApiKey = Annotated[str | None, typer.Option(envvar="ADIABAT_API_KEY", help="Key, where the service asks for one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what a program wants.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")]

PLAIN_LINE_S = 2.0
SECONDS = 120  # what takes longer is told in hours and minutes


def connect(url: str = DEFAULT_URL, api_key: str | None = None) -> AdiabatClient:
    """Raises `BadInput` for a key that no header can carry, `Unreachable` for what is no address."""
    tell_misspelt()
    if api_key is not None and not is_sendable(api_key):
        raise BadInput(f"The key (--api-key, ADIABAT_API_KEY) {NOT_SENDABLE}.")
    from httpx import InvalidURL

    try:
        return AdiabatClient(url, api_key)
    except InvalidURL as error:
        said = f"{shown(url)!r} is no address of a service ({error})"
        raise Unreachable(f"{said}: one begins with http:// or https://, as {DEFAULT_URL}.") from error


def tell_misspelt() -> None:
    for said in unknown(os.environ):
        fail(said)


def fail(sentence: str) -> None:
    errors.print(f"adiabat: {sentence}", soft_wrap=True)


def print_json(value: Any) -> None:
    """`value` may hold answers of the client anywhere."""
    written = orjson.dumps(value, default=_as_json, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.buffer.write(written)
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(value, default=_as_json, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    raise TypeError(f"{type(value).__name__} is no JSON")


def say(line: str) -> None:
    console.print(line, soft_wrap=True)


def confirmed(question: str, yes: bool) -> bool:
    """Whether it may be done. Raises `BadInput` where there is nobody to ask."""
    if not yes and not sys.stdin.isatty():
        raise BadInput(f"{question} Nothing was done; --yes says so where nobody can be asked.")
    return yes or typer.confirm(question, err=True)


class Bar:
    """A progress bar on a terminal, a plain line every two seconds elsewhere."""

    def __init__(self, title: str, total: int | None, progress: Progress | None) -> None:
        self._title = title
        self._total = total
        self._progress = progress
        self._task: TaskID | None = None
        if progress:
            self._task = progress.add_task(title, total=total, count="", left="", note="")
        self._said = time.monotonic()
        self._done = 0
        self._start: tuple[float, int] | None = None  # when the counting began, and with what

    def update(self, done: int | None, note: str = "", total: int | None = None, left_s: float | None = None) -> None:
        """`done` None: what is going on now cannot be counted. `left_s`: where who works tells it."""
        if self._start is None or done is None or done < self._done or total not in (None, self._total):
            self._start = time.monotonic(), done or 0
        self._done = done or 0
        self._total = self._total if total is None else total
        count = "" if done is None else f"{done}/{self._total or '?'}"
        left = self._left(left_s)
        if self._progress and self._task is not None:
            if done is None:
                self._progress.tasks[0].total = None  # `update` takes None for "as it was"
            of = None if done is None else self._total
            self._progress.update(self._task, completed=done or 0, total=of, count=count, left=left, note=note)
        elif time.monotonic() - self._said >= PLAIN_LINE_S:
            self._said = time.monotonic()
            said = " ".join(part for part in (self._title, count, note) if part)
            errors.print(f"{said}{', ' if left else ''}{left}", soft_wrap=True)

    def _left(self, left_s: float | None) -> str:
        """At the pace since the first word of this count: what came before it, as a wait in a queue, tells nothing."""
        began, first = self._start or (0.0, self._done)
        if left_s is None and self._done > first and self._total:
            left_s = (time.monotonic() - began) / (self._done - first) * (self._total - self._done)
        if left_s is None or left_s < 0:  # a file may grow while it is read
            return ""
        return f"{left_s:.0f} s left" if left_s < SECONDS else f"{timedelta(seconds=round(left_s))} left"


@contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Bar]:
    if not errors.is_terminal:
        yield Bar(title, total, None)
        return
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # what a narrow terminal has no room for
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False, table_column=rest),
    )
    with Progress(*columns, console=errors, expand=True) as progress:
        yield Bar(title, total, progress)
