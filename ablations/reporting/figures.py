"""Which pictures the report has, and their files: SVG and PNG, the same bytes for the same tables."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.reporting import bars, curves, figure3, plots
from ablations.reporting.tables import Table
from tnt import canvas

if TYPE_CHECKING:
    from tnt.canvas import Figure

DPI = 160
BESIDE_OTHERS = "4"  # the table that Figure 3 draws


@dataclass(frozen=True)
class Picture:
    """One that was drawn, or, where `svg` is nothing, why it was not."""

    name: str
    table: Table
    text: str  # what it shows, for whoever cannot see it; or why there is none
    svg: Path | None = None


@dataclass(frozen=True)
class Plan:
    name: str
    table: Table
    text: str
    draw: Callable[[], "Figure | None"]
    otherwise: str


def draw_all(tables: Sequence[Table], out: Path, runs: Path) -> list[Picture]:
    """Under `out`; `runs` holds the runs' directories, as far as they are at hand."""
    pictures = []
    out.mkdir(parents=True, exist_ok=True)
    with plots.style():
        for table in tables:
            for plan in _plans(table, runs):
                figure = plan.draw()
                if figure is None:
                    pictures.append(Picture(plan.name, table, plan.otherwise))
                    continue
                canvas.save(figure, out / plan.name, DPI)
                pictures.append(Picture(plan.name, table, plan.text, out / f"{plan.name}.svg"))
    return pictures


def _plans(table: Table, runs: Path) -> Iterator[Plan]:
    stem = table.ablation + _suffix(table.protocol)
    if table.number == BESIDE_OTHERS:
        for cost, words in (("params", "parameters"), ("macs", "multiply-adds")):
            name = f"figure3{_suffix(table.protocol)}-{cost}"
            text = f"Figure 3: top-1 accuracy against {words}, a line for each family of networks"
            yield Plan(name, table, text, lambda cost=cost: figure3.draw(table, cost), "nothing to compare")
    for column in table.columns:
        text = f"{table.title}: {column} of every row, measured and as the paper prints it"
        yield Plan(
            f"{stem}-{column}", table, text, lambda column=column: bars.draw(table, column), "no values yet"
        )
    for column in table.columns:
        if column == "top5":
            continue  # the same runs as top1
        learned = curves.read(table, column, runs)
        otherwise = (
            f"the journals of {len(learned.missing)} runs are not under {runs}"
            if learned.missing
            else "no run has finished"
        )
        data = "" if column == "top1" else f"-{column}"
        for what in (curves.LOSS, "accuracy"):
            yield Plan(
                f"{stem}{data}-curve-{what}",
                table,
                f"{table.title}: {what} while training, a line for each run",
                lambda column=column, learned=learned, what=what: curves.draw(table, column, learned, what),
                otherwise,
            )


def _suffix(protocol: str) -> str:
    """Of a file's name, for a table of another protocol than the paper's."""
    kept = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in protocol)
    return f"-{kept}" if kept else ""
