"""The look of every picture, and the heat map. matplotlib is imported only here, and only to draw.

Colours are told apart by every kind of eye: blue is better, orange is worse (never red and green), paper is no change.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, RULE, PAPER = "#1f2328", "#6b7280", "#d5d8dc", "#ffffff"
UNCOLOURED = "#eceef0"
LINES = ("#1f5a92", "#c8641b", "#3f8f7a", "#8a5a9e", "#b08d1e", "#5f6b7a")  # in the order in which they are used
WORSE_TO_BETTER = ("#9c3f06", "#dd8236", "#f6d7b4", "#f5f4f1", "#c3d8ea", "#5a95c6", "#18508a")
KINDS = (".png", ".svg")
DPI = 200
STYLE: Any = {  # matplotlib would have every key in its type
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "adiabat",  # the same picture has the same bytes
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shade:
    """One cell of a heat map: a figure, a smaller line below it, and what its colour says (None: no colour)."""

    figure: str
    note: str = ""
    value: float | None = None


def check_kind(path: Path) -> None:
    """Raises `BadInput` for a file that is no picture of ours."""
    if path.suffix.lower() not in KINDS:
        raise BadInput(f"A picture is written as {' or '.join(KINDS)}, not as {path.name!r}.")


@contextmanager
def picture(path: Path, width_in: float, height_in: float) -> Iterator["Figure"]:
    """A figure in the house's look, written to `path` (.png or .svg) when the block ends. Raises `BadInput`."""
    check_kind(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        dated = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=DPI, metadata=dated, bbox_inches="tight", pad_inches=0.15)


def heat_map(
    path: Path, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Shade]], *, title: str, key: str
) -> None:
    """`cells[row][column]`, coloured from worse to better around zero; `key` says below what is shown."""
    with picture(path, 1.6 + 1.15 * len(columns), 1.25 + 0.55 * len(rows)) as figure:
        from matplotlib.colors import LinearSegmentedColormap, Normalize

        axes = figure.add_subplot()
        values = [abs(cell.value) for row in cells for cell in row if cell.value is not None]
        most = max([*values, 0.01])
        scale, colours = Normalize(-most, most), LinearSegmentedColormap.from_list("adiabat", WORSE_TO_BETTER)
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                colour = colours(scale(cell.value)) if cell.value is not None else UNCOLOURED
                _draw(axes, x, y, cell, colour)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.set_xticks(range(len(columns)), columns, color=INK)
        axes.set_yticks(range(len(rows)), rows, color=INK)
        axes.xaxis.tick_top()
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(title, pad=12)
        axes.set_xlabel(key, loc="left", labelpad=10, fontsize=8)


def _draw(axes: "Axes", x: int, y: int, cell: Shade, colour: Any) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    red, green, blue = to_rgb(colour)
    ink = PAPER if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=2.5))
    lift = 0.12 if cell.note else 0.0
    axes.text(
        x, y - lift, cell.figure.replace("-", "−"), ha="center", va="center", color=ink, fontsize=10, fontweight="bold"
    )
    axes.text(x, y + 0.24, cell.note, ha="center", va="center", color=ink, fontsize=7.5)
