"""Draw the table of docs/adiabatic.md, "Two roads into the regime", as docs/pictures/tradeoff.svg.

python tools/tradeoff.py
"""

import re
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, PICTURE = DOCS / "adiabatic.md", DOCS / "pictures" / "tradeoff.svg"
HEADING = "| recipe | in its domain"
KEPT, LOST = "#0f766e", "#b45309"


def points() -> list[tuple[str, list[float], list[float]]]:
    """(recipe, gains in its domain, changes of other languages in %), one of each for every seed."""
    table = PAGE.read_text().partition(HEADING)[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in re.sub(r"\*\*|`", "", line).split("|")[1:-1]] for line in table.splitlines()[2:]]
    return [(recipe, _numbers(gains), _numbers(others)) for recipe, gains, others in rows]


def _numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]\d+\.\d+", cell)]


def main() -> None:
    matplotlib.rcParams |= {"svg.hashsalt": "tradeoff", "svg.fonttype": "none"}  # the same file for the same table
    figure = Figure(figsize=(8, 6))
    axes = figure.subplots()
    axes.axhline(0, color="0.6", linewidth=1)
    said = []
    for number, (recipe, gains, others) in enumerate(points(), 1):
        colour = KEPT if min(others) > -1 else LOST  # about what the measurement can tell
        axes.plot(gains, others, "o-", color=colour, markersize=7, linewidth=1)
        for gain, other in zip(gains, others, strict=True):
            axes.annotate(str(number), (gain, other), xytext=(6, 4), textcoords="offset points")
        said.append(f"{number}  {recipe}")
    axes.set_xlabel("gain in its domain (MRR@10)")
    axes.set_ylabel("other languages (mean relative change, %)")
    axes.grid(alpha=0.25)
    figure.text(0.08, 0.02, "\n".join(said), fontsize=8, va="bottom")
    figure.subplots_adjust(left=0.09, right=0.98, top=0.97, bottom=0.38)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
