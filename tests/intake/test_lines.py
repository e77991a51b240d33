"""Cutting a stream into lines: the same lines however the bytes arrive, and never more in memory than allowed."""

from app.intake.lines import Cutter, Line

TEXT = "\ufeffeins\r\n\n  \nzwei ü\n" + "x" * 40 + "\ndrei"
LINES = [
    Line(1, b"eins"),
    Line(4, "zwei ü".encode()),
    Line(5, None),
    Line(6, b"drei"),
]


def cut(text: bytes, size: int) -> list[Line]:
    cutter = Cutter(max_bytes=20)
    found = [line for at in range(0, len(text), size) for line in cutter.feed(text[at : at + size])]
    return [*found, *cutter.end()]


def test_lines_are_the_same_however_the_bytes_arrive() -> None:
    text = TEXT.encode()
    for size in (1, 2, 3, 7, 41, len(text)):
        assert cut(text, size) == LINES, size


def test_a_newline_at_the_end_begins_no_further_line() -> None:
    assert cut(b"a\nb\n", 4) == [Line(1, b"a"), Line(2, b"b")]
    assert cut(b"", 4) == []


def test_of_a_line_that_is_too_long_nothing_is_kept() -> None:
    cutter = Cutter(max_bytes=1_000)
    for _ in range(10_000):
        assert list(cutter.feed(b"x" * 100)) == []
        assert len(cutter._kept) <= 1_000
    assert list(cutter.feed(b"\nok\n")) == [Line(1, None), Line(2, b"ok")]
