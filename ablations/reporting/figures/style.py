"""How the report's figures look: colours that colour-blind readers can tell apart, hollow marks for what was
reported and filled marks for what was measured.

A figure has one pair of axes, so that it is readable on a phone and the page can place it beside others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ablations.reporting.tables import COLUMNS, Table
from tnt.figures import canvas

if TYPE_CHECKING:
    from tnt.figures.canvas import Axes, Figure

# In dark mode the page replaces these colours, so nothing else may have them.
INK, SOFT, GRID, PAPER = "#1b2027", "#5c6670", "#dde1e6", "#fefefe"
BLUE, BROWN = "#0072b2", "#7f6000"
# Okabe and Ito's, with a brown for the yellow, which is too pale for a line.
SERIES = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", BROWN)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 4.4  # inches
LONGEST = 34  # letters of a table's title in that of a picture
STYLE: dict[str, Any] = {
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.0,
    "errorbar.capsize": 2.5,
    "lines.solid_capstyle": "round",
}


@contextmanager
def style() -> Iterator[None]:
    with canvas.style(STYLE):
        yield


def new_plot(
    height: float, left: float, top: float, bottom: float, title: str, right: float = 0.16
) -> tuple["Figure", "Axes"]:
    """Margins in inches; the note stands in the lowest of them, the title at the left of the picture."""
    figure = canvas.new_figure(WIDTH, height)
    size = (WIDTH - left - right) / WIDTH, (height - top - bottom) / height
    axes = figure.add_axes((left / WIDTH, bottom / height, *size))
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, title, fontsize=9, weight="bold", ha="left", va="top")
    return figure, axes


def title(table: Table, column: str) -> str:
    """Short, as the figure is narrow; its caption says the rest."""
    name = f"Table {table.number}" if table.number else shortened(table.title)
    parts = [name, COLUMNS.get(column, column)] if column != "top1" else [name]
    parts += [] if table.scale == "paper" else [f"scale={table.scale}"]
    return ", ".join(parts) + (" (another protocol)" if table.protocol else "")


def shortened(text: str) -> str:
    """A heading's first words, as many as a narrow picture has room for."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rpartition(' ')[0]} …"


def names_at_ends(axes: "Axes", ends: Mapping[str, tuple[float, int]]) -> None:
    """The name of each line at its right end, by (value, series); moved apart where they would touch."""
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height / axes.figure.dpi  # inches
    gap = (high - low) * 0.125 / height
    names = sorted(ends, key=lambda name: ends[name])
    places: list[float] = []
    for name in names:
        places.append(max(min(max(ends[name][0], low), high), places[-1] + gap if places else low))
    over = max(0.0, places[-1] - high)
    for name, place in zip(names, places, strict=True):
        axes.annotate(
            name if len(name) <= 22 else f"{name[:21]}…",
            (axes.get_xlim()[1], place - over),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=colour_and_mark(ends[name][1])[0],
            annotation_clip=False,
        )


def legend(figure: "Figure", marks: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    """Under the title."""
    figure.legend(
        marks,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.06 / WIDTH, 1 - 0.27 / figure.get_size_inches()[1]),
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.35,
        handletextpad=0.4,
        columnspacing=1.2,
        ncols=columns,
    )


def note_below(figure: "Figure", lines: Sequence[str]) -> None:
    """Notes at the lower edge."""
    height = figure.get_size_inches()[1]
    text = "\n".join(lines)
    figure.text(0.1 / WIDTH, 0.07 / height, text, fontsize=6, color=SOFT, ha="left", va="bottom")


def hollow(colour: str, mark: str, size: float = 5) -> dict[str, Any]:
    """A value that somebody reported."""
    return {
        "marker": mark,
        "markersize": size,
        "markerfacecolor": PAPER,
        "markeredgecolor": colour,
        "markeredgewidth": 1.1,
    }


def filled(colour: str, mark: str, size: float = 6) -> dict[str, Any]:
    """A value that was measured here."""
    return {
        "marker": mark,
        "markersize": size,
        "markerfacecolor": colour,
        "markeredgecolor": INK,
        "markeredgewidth": 0.7,
        "ecolor": INK,
        "elinewidth": 1.0,
    }


def colour_and_mark(place: int) -> tuple[str, str]:
    return SERIES[place % len(SERIES)], MARKS[place % len(MARKS)]
