"""Tables on standard output. Verdicts are words; a terminal adds colours."""

import sys
from collections.abc import Iterable

from ablations.reporting.judging import verdicts
from ablations.reporting.text.grid import Grid

STYLES = (
    dict.fromkeys(verdicts.GOOD, "green")
    | dict.fromkeys(verdicts.FAIR, "yellow")
    | dict.fromkeys(verdicts.BAD, "bold red")
    | {verdicts.NOT_RUN: "dim", verdicts.REPORTED: "dim"}
)
WIDE = 200  # where no terminal limits it


def show(grids: Iterable[Grid]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    for grid in grids:
        console.print(Text(grid.title, style="bold"))
        if grid.why:
            console.print(Text(grid.why, style="dim"))
        table = Table(box=None, pad_edge=False, header_style="dim")
        for place, name in enumerate(grid.head):
            table.add_column(
                Text(name), justify="left" if place < grid.text or name == "verdict" else "right"
            )
        for line in grid.lines:
            table.add_row(*(Text(value, style=STYLES.get(value.partition(" (")[0], "")) for value in line))
        console.print(table)
        for note in grid.notes:
            console.print(Text(f"* {note}", style="dim"))
        console.print()
