"""What the commands share: how long a plain line of progress says that it takes, and text as it was written."""

import pytest
from rich.table import Table

from app.cli import common
from app.cli.common import Bar


def test_the_time_left_is_told_by_the_pace_since_the_counting_began(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(common.time, "monotonic", lambda: now)
    bar = Bar("tuning", None, None)
    said = []
    for at, done, total in ((500.0, 0, 10), (510.0, 1, 10), (530.0, 3, 10), (540.0, 0, 4), (550.0, 1, 4)):
        now = at
        bar.update(done, total=total)
        said.append(capsys.readouterr().err.strip().partition(", ")[2])
    assert said == ["", "90 s left", "70 s left", "", "30 s left"]  # the first 500 s were spent in a queue


def test_nothing_in_a_text_is_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]a[/bold] [/red] :bee:"
    table = Table(text, box=None, pad_edge=False)
    table.add_row(text)
    common.console.print(table)
    common.say(text)
    common.fail(text)
    shown = capsys.readouterr()
    assert [line.strip() for line in shown.out.splitlines()] == [text] * 3
    assert shown.err == f"adiabat: {text}\n"
