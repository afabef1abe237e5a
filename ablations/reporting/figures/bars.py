"""A table as dots: each row's mean with its 95 % interval, beside the paper's value."""

import math
from typing import TYPE_CHECKING

from ablations.reporting.figures import style
from ablations.reporting.tables import Entry, Table

if TYPE_CHECKING:
    from tnt.figures.canvas import Axes, Figure

OURS, PAPER, LATER = style.BLUE, "#d55e00", "#009e73"


def draw(table: Table, column: str) -> "Figure | None":
    """None where fewer than two rows have a value in that column."""
    found = [(row, entry) for row in table.rows if (entry := row.entry(column))]
    rows = [(row.label, entry) for row, entry in found if _values(entry) or not row.peer]
    entries = [entry for _, entry in rows]
    if sum(bool(_values(entry)) for entry in entries) < 2:  # one point compares nothing
        return None
    left = 0.2 + min(0.062 * max(len(label) for label, _ in rows), 1.5)
    name = style.title(table, column) + ("" if column == "top5" else ": top-1")
    figure, axes = style.new_plot(1.22 + 0.26 * len(rows), left, top=0.5, bottom=0.62, title=name)
    start, end = _limits(entries)
    for line, entry in enumerate(entries):
        _draw_entry(axes, line, entry, start)
    axes.set_xlim(start, end)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_xlabel("%")
    _legend(figure, axes, entries)
    style.note_below(figure, [f"The axis begins at {start:g} %."])
    return figure


def _draw_entry(axes: "Axes", line: int, entry: Entry, start: float) -> None:
    """Of a row that we run, the paper's marks in the upper half of its line and ours in the lower."""
    above, below = line - 0.2 if entry.key else line, line + 0.16
    if entry.mean is not None:
        for value in entry.values if entry.n > 1 else ():
            axes.plot(value, below, marker="|", markersize=5, color=OURS)
        axes.errorbar(entry.mean, below, xerr=entry.half, zorder=3, **style.filled(OURS, "o", 5))
    elif entry.key:
        axes.annotate(
            "not run", (start, below), (3, 0), textcoords="offset points", color=style.SOFT, fontsize=6,
            va="center",
        )  # fmt: skip
    if entry.paper is not None:
        axes.plot(entry.paper, above, linestyle="", zorder=4, **style.hollow(PAPER, "D", 4.5))
    if entry.official is not None:
        axes.plot(entry.official, above, linestyle="", zorder=5, **style.hollow(LATER, "^", 4.5))


def _legend(figure: "Figure", axes: "Axes", entries: list[Entry]) -> None:
    shown = []
    if any(entry.values for entry in entries):
        shown.append((style.filled(OURS, "o", 5), "measured here, with a 95 % interval"))
    if any(entry.paper is not None for entry in entries):
        shown.append((style.hollow(PAPER, "D", 4.5), "the paper"))
    if any(entry.official is not None for entry in entries):
        shown.append((style.hollow(LATER, "^", 4.5), "its authors later"))
    marks = [axes.errorbar([], [], linestyle="", **mark) for mark, _ in shown]
    style.legend(figure, marks, [label for _, label in shown], len(shown))


def _values(entry: Entry) -> list[float]:
    spread = entry.half or 0.0
    ours = [] if entry.mean is None else [entry.mean - spread, entry.mean + spread, *entry.values]
    return ours + [value for value in (entry.paper, entry.official) if value is not None]


def _limits(entries: list[Entry]) -> tuple[float, float]:
    """From a round number below all marks to somewhat above them."""
    values = [value for entry in entries for value in _values(entry)]
    low, high = min(values), max(values)
    room = max(high - low, 0.4)
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if room <= 12 * step)
    start = max(0.0, math.floor((low - 0.12 * room) / step) * step)
    return round(start, 1), min(high + 0.08 * room, max(100.0, high) + 0.02 * room)
