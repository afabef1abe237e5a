"""Accuracy against measured speed: at equal cost in hours, which network is ahead?"""

from typing import TYPE_CHECKING

from ablations.reporting.figures import style
from ablations.reporting.tables import Table, TableRow

if TYPE_CHECKING:
    from tnt.figures.canvas import Figure

COLUMN = "top1"


def rows(table: Table) -> list[TableRow]:
    """Those that were measured, on one kind of device."""
    found = [row for row in table.rows if row.speed and (entry := row.entry(COLUMN)) and entry.n]
    return found if len({row.device for row in found} | {""}) == 2 and all(r.device for r in found) else []


def compares(table: Table) -> bool:
    """Whether its rows are networks of several kinds, so that each has a speed of its own."""
    return len({row.params for row in rows(table)}) > 1


def draw(table: Table) -> "Figure":
    found = rows(table)
    right = 0.2 + min(0.068 * max(len(row.label) for row in found), 1.5)
    figure, axes = style.new_plot(
        3.3, 0.58, top=0.36, bottom=0.72, title=f"{style.title(table, COLUMN)}: speed", right=right
    )
    ends = {}
    for place, row in enumerate(found):
        entry, (colour, mark) = row.entry(COLUMN), style.colour_and_mark(place)
        assert entry is not None, "it was measured"
        assert entry.mean is not None, "by some run"
        assert row.speed is not None, "which said how fast it was"
        axes.errorbar(row.speed, entry.mean, yerr=entry.half or None, **style.filled(colour, mark, 5))
        ends[row.label] = entry.mean, place
    axes.set_xlabel("images/s of one device in training")
    axes.set_ylabel("top-1 (%)")
    axes.grid(True)
    axes.margins(x=0.2, y=0.15)
    style.names_at_ends(axes, ends)
    style.note_below(figure, [f"Measured on {found[0].device[:60]}; 95 % intervals."])
    return figure
