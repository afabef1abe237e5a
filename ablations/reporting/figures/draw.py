"""The report's figures as SVG and PNG files; the same tables give the same bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.reporting.figures import bars, curves, figure3, forest, speed, style
from ablations.reporting.tables import COLUMNS, Table, file_name, heading
from tnt.figures import canvas

if TYPE_CHECKING:
    from tnt.figures.canvas import Figure

DPI = 300  # of a PNG; journals ask for it
BESIDE_OTHERS = "4"  # the number of the table that Figure 3 draws


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn or, where `svg` is None, the reason why it was not."""

    name: str
    table: Table
    text: str  # what it shows, for screen readers; or why it was not drawn
    svg: Path | None = None
    kept: bool = False  # it is of an earlier report: not all that it shows lies here


@dataclass(frozen=True)
class PlannedFigure:
    name: str
    table: Table
    text: str
    draw: Callable[[], "Figure | None"]
    otherwise: str
    elsewhere: bool = False  # its records are here, and the runs' directories that it shows are not


def draw_all(tables: Sequence[Table], out: Path, runs: Path) -> list[Picture]:
    """Draw into the folder `out`; curves are read from those runs' directories that exist under `runs`."""
    pictures = []
    out.mkdir(parents=True, exist_ok=True)
    with style.style():
        for table in tables:
            for plan in _plans(table, runs):
                figure = plan.draw()
                svg = out / f"{plan.name}.svg"
                if figure is not None:
                    canvas.save(figure, out / plan.name, DPI)
                    pictures.append(Picture(plan.name, table, plan.text, svg))
                elif plan.elsewhere and svg.exists():
                    text = f"{plan.text}, as an earlier report drew it"
                    pictures.append(Picture(plan.name, table, text, svg, kept=True))
                else:
                    for suffix in canvas.SUFFIXES:  # of records that are no longer there
                        (out / f"{plan.name}{suffix}").unlink(missing_ok=True)
                    pictures.append(Picture(plan.name, table, plan.otherwise))
    return pictures


def _plans(table: Table, runs: Path) -> Iterator[PlannedFigure]:
    stem, title = file_name(table), heading(table)
    if table.number == BESIDE_OTHERS:
        for cost, words in figure3.NAMES.items():
            name = f"{stem.replace(table.name, 'figure3')}-{cost}"
            text = f"Figure 3: top-1 accuracy against {words}, a line for each family of networks"
            yield PlannedFigure(
                name, table, text, partial(figure3.draw, table, cost), "nothing to compare yet"
            )
    if speed.compares(table):
        text = f"{title}: top-1 accuracy against the images a second that were measured in training"
        yield PlannedFigure(f"{stem}-speed", table, text, partial(speed.draw, table), "nothing was measured")
    for column in (name for name in table.columns if name != "top5" or _printed(table, name)):
        text = f"{title}: {COLUMNS.get(column, column)} of every row, as measured and as the paper prints it"
        yield PlannedFigure(
            f"{stem}-{column}", table, text, partial(bars.draw, table, column), "no figures yet"
        )
    if table.checks:
        text = f"{title}: what the judge found, with its interval, and what there is"
        yield PlannedFigure(f"{stem}-controls", table, text, partial(forest.draw, table), "no interval")
    for column in table.columns:
        if column != "top5":  # which the runs of top1 have too
            yield from _curves(table, column, runs)


def _printed(table: Table, column: str) -> bool:
    return any(entry.paper is not None for entry in table.entries if entry.column == column)


def _curves(table: Table, column: str, runs: Path) -> Iterator[PlannedFigure]:
    learned = curves.read(table, column, runs)
    otherwise = "no run has finished"
    if learned.missing:
        otherwise = f"no journal of {', '.join(learned.missing)} under {runs}/"
    stem = file_name(table) if column == "top1" else f"{file_name(table)}-{column}"
    for what in (curves.LOSS, curves.ACCURACY):
        text = f"{heading(table)}: {what} in training, a line for each run"
        draw = partial(curves.draw, table, column, learned, what)
        yield PlannedFigure(f"{stem}-{what}", table, text, draw, otherwise, elsewhere=bool(learned.missing))
