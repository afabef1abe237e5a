"""A table as a picture: each row's mean with its deviation over seeds, beside what the paper printed."""

import math
from typing import TYPE_CHECKING

from ablations.reporting import plots
from ablations.reporting.tables import Entry, Table

if TYPE_CHECKING:
    from tnt.canvas import Axes, Figure

OURS, PAPER, LATER = "#0072b2", "#d55e00", "#009e73"


def draw(table: Table, column: str) -> "Figure | None":
    """Nothing where no row has a value in that column."""
    rows = [(row.label, entry) for row in table.rows for entry in row.entries if entry.column == column]
    rows = [(label, entry) for label, entry in rows if _values(entry)]
    if not rows:
        return None
    longest = max(len(label) for label, _ in rows)
    left = 0.25 + min(0.062 * longest, 1.5)
    height = 1.22 + 0.24 * len(rows)
    figure, axes = plots.new_plot(height, left, top=0.56, bottom=0.62, title=f"{table.title}: {column}")
    start, end = _limits([entry for _, entry in rows])
    for line, (_, entry) in enumerate(rows):
        _draw_entry(axes, line, entry, start)
    axes.set_xlim(start, end)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_xlabel("% right" if column not in ("top1", "top5") else f"{column.replace('p', 'p-')} (%)")
    _legend(figure, [entry for _, entry in rows])
    plots.say_below(figure, [f"The axis begins at {start:g} %: lengths of bars do not compare."])
    return figure


def _draw_entry(axes: "Axes", line: int, entry: Entry, start: float) -> None:
    if entry.mean is not None:
        axes.barh(line, entry.mean - start, left=start, height=0.56, color=OURS, alpha=0.3, linewidth=0)
        axes.errorbar(entry.mean, line, xerr=entry.std or None, zorder=3, **plots.filled(OURS, "o", 5))
        for value in entry.values if entry.n > 1 else ():
            axes.plot(value, line + 0.2, marker="|", markersize=4, color=plots.SOFT)
    if entry.paper is not None:
        axes.plot(entry.paper, line, linestyle="", zorder=4, **plots.hollow(PAPER, "D"))
    if entry.official is not None:
        axes.plot(entry.official, line, linestyle="", zorder=4, **plots.hollow(LATER, "^"))


def _legend(figure: "Figure", entries: list[Entry]) -> None:
    from_figure = figure.axes[0]
    shown = []
    if any(entry.mean is not None for entry in entries):
        (mark,) = from_figure.plot([], [], linestyle="", marker="o", color=OURS, markeredgecolor=plots.INK)
        shown.append((mark, "measured here, mean ± std over seeds"))
    if any(entry.paper is not None for entry in entries):
        (mark,) = from_figure.plot([], [], linestyle="", **plots.hollow(PAPER, "D"))
        shown.append((mark, "the paper"))
    if any(entry.official is not None for entry in entries):
        (mark,) = from_figure.plot([], [], linestyle="", **plots.hollow(LATER, "^"))
        shown.append((mark, "its authors later"))
    height = figure.get_size_inches()[1]
    figure.legend(
        *zip(*shown, strict=True),
        loc="upper left",
        bbox_to_anchor=(0.06 / plots.WIDTH, 1 - 0.25 / height),
        borderpad=0,
        borderaxespad=0,
        ncols=len(shown),
        handletextpad=0.3,
        columnspacing=1.2,
    )


def _values(entry: Entry) -> list[float]:
    spread = entry.std or 0.0
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
