"""Figure 3: accuracy against size and against cost, a line for each family of networks.

What the paper reports is hollow, what was measured here is filled.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.reporting.figures import style
from ablations.reporting.tables import Table, TableRow

if TYPE_CHECKING:
    from tnt.figures.canvas import Axes, Figure

COLUMN = "top1"
NAMES = {"params": "parameters", "macs": "multiply-adds"}
AXES = {"params": "parameters (millions)", "macs": "multiply-adds of one image (billions)"}
UNITS = {"params": 1e6, "macs": 1e9}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Family:
    """Networks that one line joins; its name stands beside the last of them, at an offset in points."""

    name: str
    colour: str
    mark: str
    offset: tuple[float, float] = (6, -2)
    side: str = "left"


# By the beginning of a label, the first that fits.
FAMILIES = (
    Family("TNT", "#d55e00", "o", (4, 6)),
    Family("ResNet", style.SOFT, "s"),
    Family("RegNetY", "#56b4e9", "^", (0, -11), "center"),
    Family("GhostNet", style.BROWN, "v", (0, -11), "center"),
    Family("EfficientNet", "#009e73", "D", (0, 7), "center"),
    Family("T2T-ViT", "#e69f00", "P", (-6, -3), "right"),
    Family("DeiT", style.BLUE, "X", (0, -12), "center"),
    Family("ViT", "#cc79a7", "<", (-6, -3), "right"),
)


@dataclass(frozen=True)
class Point:
    label: str
    x: float
    y: float
    error: float = 0.0


def draw(table: Table, cost: str) -> "Figure | None":
    """Table 4 against "params" or "macs"; None where it has neither a reported nor a measured point."""
    reported = {family.name: _points(table, family, cost, measured=False) for family in FAMILIES}
    measured = {family.name: _points(table, family, cost, measured=True) for family in FAMILIES}
    if not any((*reported.values(), *measured.values())):
        return None
    figure, axes = style.new_plot(
        3.5, left=0.5, top=0.36, bottom=0.72, title=f"Figure 3: top-1 against {NAMES[cost]}"
    )
    for family in FAMILIES:
        _draw_family(axes, family, reported[family.name], measured[family.name])
    axes.set_ylabel("top-1 (%)")
    axes.set_xlabel(AXES[cost])
    axes.grid(True)
    axes.margins(x=0.09, y=0.09)
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.4))  # room for a mark at 100 %
    xs = [point.x for points in (*reported.values(), *measured.values()) for point in points]
    if max(xs) > 3 * min(xs):
        _logarithmic(axes)
    style.note_below(figure, [_legend(any(reported.values()), any(measured.values()))])
    return figure


def _draw_family(axes: "Axes", family: Family, reported: list[Point], measured: list[Point]) -> None:
    strong = family.name == "TNT"
    for points, dashes in ((reported, "-"), (measured, (0, (3, 2)))):
        if len(points) > 1:
            xs, ys = [point.x for point in points], [point.y for point in points]
            width = 1.6 if strong else 0.9
            axes.plot(xs, ys, color=family.colour, linewidth=width, linestyle=dashes, alpha=0.8)
    for point in reported:
        axes.plot(
            point.x, point.y, linestyle="", **style.hollow(family.colour, family.mark, 7 if strong else 5)
        )
    for point in measured:
        axes.errorbar(
            point.x, point.y, yerr=point.error or None, **style.filled(family.colour, family.mark, 4)
        )
    last = max([*reported, *measured], key=lambda point: (point.x, point.y), default=None)
    if last is not None:
        axes.annotate(
            family.name,
            (last.x, last.y),
            family.offset,
            textcoords="offset points",
            ha=family.side,
            color=family.colour,
            fontsize=8 if strong else 7,
            weight="bold" if strong else "normal",
        )


def _points(table: Table, family: Family, cost: str, measured: bool) -> list[Point]:
    found = []
    for row in table.rows:
        entry = row.entry(COLUMN)
        if entry is None or family_of(row.label) is not family:
            continue
        x, y = (_own(row, cost), entry.mean) if measured else (_printed(row, cost), entry.paper)
        if x is not None and y is not None:
            found.append(Point(row.label, x, y, (entry.half or 0.0) if measured else 0.0))
    return sorted(found, key=lambda point: (point.x, point.y))


def family_of(label: str) -> Family | None:
    return next((family for family in FAMILIES if label.startswith(family.name)), None)


def _own(row: TableRow, cost: str) -> float | None:
    value = getattr(row, cost)
    return None if value is None else value / UNITS[cost]


def _printed(row: TableRow, cost: str) -> float | None:
    value = getattr(row, f"paper_{cost}")
    return None if value is None else float(value)


def _legend(reported: bool, measured: bool) -> str:
    parts = ["hollow: reported by the paper"] if reported else []
    parts += ["filled: measured here, with 95 % intervals" if measured else "nothing measured here yet"]
    return "; ".join(parts).capitalize() + "."


def _logarithmic(axes: "Axes") -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in TICKS if low <= tick <= high])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
