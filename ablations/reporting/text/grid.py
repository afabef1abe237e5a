"""A table as rows of text, the same for the terminal, Markdown and LaTeX."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from ablations.reporting.settings import SettingTable
from ablations.reporting.tables import (
    COLUMNS,
    NONE,
    Table,
    TableRow,
    counted,
    delta,
    file_name,
    heading,
    ours,
    said,
    said_of_both,
    with_half,
)
from tnt.untrusted.showing import shown


@dataclass(frozen=True)
class Grid:
    name: str  # of its files
    title: str
    why: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    text: int  # how many columns from the left are text; the others are figures
    notes: tuple[str, ...]


def grid(table: Table) -> Grid:
    """Columns that would be empty are left out."""
    wide = len(table.columns) > 2
    head, lines = _by_column(table) if wide else _by_row(table)
    kept = [
        place
        for place in range(len(head))
        if place == 0 or any(line[place] not in (NONE, "") for line in lines)
    ]
    if not wide:
        kept = [
            place for place in kept if head[place] != "measure" or len({line[place] for line in lines}) > 1
        ]
    return Grid(
        name=file_name(table),
        title=shown(heading(table)),
        why=table.why,
        head=tuple(head[place] for place in kept),
        lines=tuple(tuple(line[place] for place in kept) for line in lines),
        text=1 + ("figure" in head),
        notes=tuple(map(shown, (*table.notes, *_size_notes(table)))),
    )


def grids(table: Table) -> list[Grid]:
    """The rows, and below them effects and controls where there are any; anchors are controls alone."""
    if not table.rows:
        return [dataclasses.replace(check_grid(table), title=shown(heading(table)), why=table.why)]
    return [grid(table), *(below for below in (effect_grid(table), check_grid(table)) if below.lines)]


def effect_grid(table: Table) -> Grid:
    """A line for each pair of rows that were both run."""
    labels = {entry.key: row.label for row in table.rows for entry in row.entries}
    lines = [
        (
            f"{labels[each.ahead]} − {labels[each.behind]}",
            COLUMNS.get(each.column, each.column),
            NONE if each.paper is None else f"{each.paper:+.1f}",
            with_half(each.ours, each.half),
            NONE if each.p is None else "<0.001" if each.p < 0.001 else f"{each.p:.3f}",
            said(each),
        )
        for each in table.effects
        if each.ours is not None
    ]
    head = ("effect", "measure", "paper", "ours", "p", "verdict")
    note = f"± is a 95 % interval; p is corrected for {len(lines)} effects; docs/statistics.md says more"
    return Grid(f"{file_name(table)}-effects", "Effects", "", head, tuple(lines), 2, (note,))


def check_grid(table: Table) -> Grid:
    lines = [(each.label, each.what, each.expected, each.found, each.verdict) for each in table.checks]
    head = ("row", "control", "expected", "found", "verdict")
    return Grid(f"{file_name(table)}-controls", "Controls", "", head, tuple(lines), 5, ())


def setting_grid(table: SettingTable) -> Grid:
    lines = [
        (each.row, each.name, each.paper, each.ours, "yes" if each.agrees else "no")
        for each in table.settings
    ]
    head = ("", "setting", "paper", "ours", "agree")
    return Grid(table.name, f"Table {table.number}. {table.title}", "", head, tuple(lines), 2, table.notes)


def _by_row(table: Table) -> tuple[list[str], list[list[str]]]:
    """A line for each measure that the paper prints, of each row."""
    head = ["", "M", "paper M", "G", "paper G", "measure", "paper", "later", "ours", "Δ", "verdict"]
    lines = []
    for row in table.rows:
        shown = [
            entry for entry in row.entries if entry.column == table.columns[0] or entry.paper is not None
        ]
        for entry in shown:
            first = entry is shown[0]
            size = _size(row) if first else [""] * 4
            figures = [_percent(entry.paper), _percent(entry.official), ours(entry), delta(entry)]
            label = row.label if first else ""
            lines.append(
                [label, *size, COLUMNS.get(entry.column, entry.column), *figures, said_of_both(entry)]
            )
    return head, lines


def _by_column(table: Table) -> tuple[list[str], list[list[str]]]:
    """A line for each kind of figure, of each row; a column for each set."""
    head = ["", "figure", "M", "paper M", *(COLUMNS.get(name, name) for name in table.columns)]
    lines = []
    for row in table.rows:
        kinds = {"paper": [_percent(entry.paper) for entry in row.entries]}
        if not row.peer:
            kinds["ours"] = [ours(entry) for entry in row.entries]
            kinds["Δ"] = [delta(entry) for entry in row.entries]
            kinds["verdict"] = [said(entry) for entry in row.entries]
        if table.scale != "paper" or table.protocol:
            del kinds["paper"], kinds["Δ"]
        for place, (kind, figures) in enumerate(kinds.items()):
            size = _size(row)[:2] if place == 0 else [""] * 2
            lines.append(["" if place else row.label, kind, *size, *figures])
    return head, lines


def _size(row: TableRow) -> list[str]:
    return [
        counted(row.params, 1e6),
        _percent(row.paper_params),
        counted(row.macs, 1e9),
        _percent(row.paper_macs),
    ]


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def _size_notes(table: Table) -> Iterator[str]:
    said: dict[str, list[str]] = {}
    for row in table.rows:
        for note in row.notes:
            said.setdefault(note, []).append(row.label)
        if row.paper_params and row.params_frozen and row.params:
            shown, printed = round(row.params / 1e6, 1), round(row.params_frozen / 1e6, 1)
            if shown != row.paper_params == printed:
                said.setdefault(
                    f"the paper's {printed} M are with the tensor that the authors' code registers and never "
                    f"reads, {row.params_frozen / 1e6:.3f} M",
                    [],
                ).append(row.label)
    for note, labels in said.items():
        yield f"{', '.join(labels)}: {note}"
