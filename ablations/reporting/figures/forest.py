"""Controls whose outcome is a difference: what was found, with its 95 % interval, and what had to be."""

from typing import TYPE_CHECKING

from ablations.reporting.figures import style
from ablations.reporting.tables import Table

if TYPE_CHECKING:
    from tnt.figures.canvas import Figure

FOUND, EXPECTED = style.BLUE, "#d55e00"


def draw(table: Table) -> "Figure | None":
    """None where no control of the table is a difference."""
    checks = [check for check in table.checks if check.difference is not None]
    if not checks:
        return None
    figure, axes = style.new_plot(
        1.3 + 0.42 * len(checks), 0.16, top=0.55, bottom=0.7, title=style.title(table, "top1")
    )
    for line, check in enumerate(checks):
        assert check.difference is not None
        found, half, expected = check.difference
        axes.errorbar(found, line, xerr=half, zorder=3, **style.filled(FOUND, "o", 5))
        axes.plot(expected, line, linestyle="", zorder=4, **style.hollow(EXPECTED, "D", 4.5))
        axes.annotate(
            f"{check.what}: {check.verdict}", (0, line), (0, 9), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", fontsize=7, va="bottom",
        )  # fmt: skip
    axes.axvline(0, color=style.GRID, zorder=0)
    axes.set_ylim(len(checks) - 0.6, -0.75)
    axes.set_yticks([])
    axes.set_xlabel("difference between two groups of seeds, points of top-1")
    marks = [axes.errorbar([], [], linestyle="", **mark) for mark in
             (style.filled(FOUND, "o", 5), style.hollow(EXPECTED, "D", 4.5))]  # fmt: skip
    style.legend(figure, marks, ["found by the judge, with its 95 % interval", "what there is"], 2)
    style.note_below(figure, ["A planted effect: so many answers of one group were set right."])
    return figure
