"""What the commands share: how long a plain line of progress says that it takes."""

import pytest

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
