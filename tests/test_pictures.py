"""Pictures: what is drawn, that the same is drawn twice, and what is said where none can be."""

from pathlib import Path

import pytest

from app.errors import BadInput
from app.pictures import Shade, heat_map

CELLS = [[Shade(figure="0.467"), Shade(figure="0.824")], [Shade(figure="-0.063*", note="0.404", value=-0.063)] * 2]


def drawn(path: Path) -> bytes:
    heat_map(path, ["base@1", "bees@1"], ["test", "de"], CELLS, title="Difference", key="blue: better")
    return path.read_bytes()


def test_a_heat_map_says_every_figure_and_is_the_same_each_time(tmp_path: Path) -> None:
    svg = drawn(tmp_path / "one.svg")
    for said in ("base@1", "bees@1", "test", "de", "0.467", "0.824", "−0.063*", "0.404", "Difference", "blue: better"):
        assert f">{said}<" in svg.decode(), said
    assert drawn(tmp_path / "two.svg") == svg


def test_a_png_is_one(tmp_path: Path) -> None:
    assert drawn(tmp_path / "one.PNG").startswith(b"\x89PNG\r\n")


def test_another_kind_of_file_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.png or \.svg, not as 'one\.jpg'"):
        drawn(tmp_path / "one.jpg")
