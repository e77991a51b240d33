"""What the commands share: how long a plain line of progress says that it takes, and text as it was written."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from app.cli import common
from app.cli.common import Bar
from app.cli.in_commands import in_commands
from app.cli.serving import read_settings


def test_the_time_left_is_told_by_the_pace_since_the_counting_began(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(common.time, "monotonic", lambda: now)
    bar = Bar("tuning", None, None)
    said = []
    # The first 500 s were spent in a queue; then a count begins anew, as of a job that was resumed, and another one.
    moments = (
        (500, 0, 10),
        (510, 1, 10),
        (530, 3, 10),
        (900, 2, 10),
        (910, 3, 10),
        (920, 0, 4),
        (930, 1, 4),
        (940, 5, 4),
    )
    for at, done, total in moments:
        now = at
        bar.update(done, total=total)
        said.append(capsys.readouterr().err.strip().partition(", ")[2])
    assert said == ["", "90 s left", "70 s left", "", "70 s left", "", "30 s left", ""]
    now += 10
    bar.update(2, total=4, left_s=9_000)
    now += 10
    bar.update(3, total=4, left_s=8_460.4)  # who works knows better: all that happened to a job may come at once
    assert capsys.readouterr().err.splitlines()[-1] == "tuning 3/4, 2:21:00 left"


def test_a_misspelt_setting_of_a_command_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADIABAT_ULR", "http://127.0.0.1:9")
    for command in (lambda: common.connect().close(), lambda: read_settings({})):  # the second kind has no service
        command()
        assert "ADIABAT_ULR is no setting and does nothing; did you mean ADIABAT_URL?" in capsys.readouterr().err


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


def test_a_narrow_terminal_cuts_what_is_going_on_and_not_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what cannot be counted has no count: 0 of 39 would be wrong."""
    drawn = io.StringIO()
    monkeypatch.setattr(common, "errors", Console(file=drawn, force_terminal=True, width=80, color_system=None))
    with common.progress_bar("tuning bees") as bar:
        bar.update(3, "tuning at 0.000316228, 1 epoch, reach 10, T 0.045, loss 0.1234", 39)
    counted = drawn.getvalue()
    assert re.search(r"tuning bees .* 3/39 .* tuning at 0\.000316228, 1.*…", counted)
    with common.progress_bar("tuning bees") as bar:
        bar.update(3, "tuning", 39)
        bar.update(None, "measuring at a = 0.4")
        assert bar._progress is not None
        assert bar._progress.tasks[0].total is None  # it pulses, and has no time left
    assert "measuring" in (last := drawn.getvalue().rpartition("tuning bees")[2])
    assert "39" not in last
    assert ":" not in last


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("No encoder is named 'x'; GET /encoders lists them.", "No encoder is named 'x'; 'adiabat encoders list'"),
        ("PUT /datasets/bees makes it.", "'adiabat datasets put' makes it."),
        ("POST /routes/a.b/rollback brings it back.", "'adiabat routes rollback' brings it back."),
        ("GET /docs lists every call.", "GET /docs lists every call."),
        ("POST /judgments/x is none.", "POST /judgments/x is none."),
        ("PUT /datasets/bees:de makes it.", "'adiabat datasets put' makes it."),
        ("POST /active-encoder/rollback goes back.", "'adiabat encoders rollback' goes back."),
        ("(PUT /routes/a.b).", "('adiabat routes set')."),
    ],
)
def test_calls_of_the_service_are_told_as_commands(said: str, told: str) -> None:
    assert in_commands(said, "not-found").startswith(told)
    assert in_commands(said, "no-such-route") == said
