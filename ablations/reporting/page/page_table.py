"""A table as the page shows it: each cell with its text, its sort key, and the details that it opens."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ablations.reporting.judging import verdicts
from ablations.reporting.tables import (
    COLUMNS,
    NONE,
    Entry,
    Table,
    TableRow,
    counted,
    delta,
    file_name,
    heading,
    ours,
    with_half,
)
from ablations.reporting.text.grid import Grid, grid, grids

NARROW = 2  # with more columns of results, differences get no column of their own
TONES = (
    dict.fromkeys(verdicts.GOOD, "good")
    | dict.fromkeys(verdicts.FAIR, "fair")
    | dict.fromkeys(verdicts.BAD, "bad")
    | dict.fromkeys((*verdicts.PLAIN, verdicts.MEASURED), "plain")
    | {verdicts.REPORTED: "quiet", verdicts.NOT_RUN: "quiet"}
)


@dataclass(frozen=True)
class ColumnHead:
    text: str
    group: str = ""  # the result that it belongs to, where there are several


@dataclass(frozen=True)
class PageCell:
    head: ColumnHead
    text: str
    sort: str = ""  # a number or a text; "" goes last
    small: str = ""  # beside the text: what the paper prints, or a difference
    verdict: str = ""
    opens: str = ""  # the id of the details

    @property
    def tone(self) -> str:
        return TONES.get(self.verdict, "quiet")


@dataclass(frozen=True)
class PageRow:
    label: str
    peer: bool
    cells: tuple[PageCell, ...]

    @property
    def verdicts(self) -> list[str]:
        return sorted({cell.verdict for cell in self.cells if cell.verdict})


@dataclass(frozen=True)
class PageTable:
    table: Table
    name: str
    heading: str
    heads: tuple[ColumnHead, ...]
    lines: tuple[PageRow, ...]
    remarks: tuple[str, ...]  # on sizes; the table's own notes come before them
    below: tuple[Grid, ...]  # effects and controls, where there are any

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The upper line of the head, as texts and how many columns each spans; none if it says nothing."""
        found: list[tuple[str, int]] = []
        for head in self.heads:
            if found and found[-1][0] == head.group:
                found[-1] = (head.group, found[-1][1] + 1)
            else:
                found.append((head.group, 1))
        return found if any(text for text, _ in found) else []


def page_table(table: Table) -> PageTable:
    """Empty columns are left out."""
    shown = [column for column in table.columns if column == table.columns[0] or _says(table, column)]
    lines = [(row, tuple(_cells(table, row, shown))) for row in table.rows]
    heads = [cell.head for cell in lines[0][1]] if lines else []
    kept = [
        place
        for place, head in enumerate(heads)
        if head.text == "ours" or any(cells[place].text != NONE for _, cells in lines)
    ]
    return PageTable(
        table=table,
        name=file_name(table),
        heading=heading(table),
        heads=tuple(heads[place] for place in kept),
        lines=tuple(
            PageRow(row.label, row.peer, tuple(cells[place] for place in kept)) for row, cells in lines
        ),
        remarks=grid(table).notes[len(table.notes) :],
        below=tuple(grids(table)[bool(lines) :]),
    )


def identity(table: Table, entry: Entry) -> str:
    """A cell's id on the page, as table6/4; unlike its key, it names the table's protocol."""
    return f"{file_name(table)}/{entry.key.partition('/')[2]}"


def _says(table: Table, column: str) -> bool:
    """Whether the paper prints it, or we have figures of a set of its own."""
    entries = [entry for entry in table.entries if entry.column == column]
    return any(entry.paper is not None for entry in entries) or (column != "top5" and bool(entries))


def _cells(table: Table, row: TableRow, columns: Sequence[str]) -> Iterator[PageCell]:
    yield _size(ColumnHead("params, M"), row.params, row.paper_params, 1e6)
    yield _size(ColumnHead("MACs, G"), row.macs, row.paper_macs, 1e9)
    for column in columns:
        group = COLUMNS.get(column, column)
        entry = row.entry(column) or Entry("", column, verdict="")
        yield _percent(ColumnHead("paper", group), entry.paper)
        later = _percent(ColumnHead("later", group), entry.official)
        judged = entry.official is not None and entry.n > 0
        small = with_half(entry.later_delta, entry.later_half) if judged else ""
        yield dataclasses.replace(later, small=small, verdict=entry.later_verdict if judged else "")
        yield _ours(table, ColumnHead("ours", group), entry, len(columns) > NARROW)
        if len(columns) <= NARROW:
            yield PageCell(ColumnHead("Δ", group), delta(entry), _sortable(entry.delta))


def _size(head: ColumnHead, count: int | None, printed: float | None, unit: float) -> PageCell:
    paper = NONE if printed is None else f"{printed:.1f}"
    if count is None:
        return PageCell(head, paper, _sortable(printed), "as reported" if printed is not None else "")
    small = "" if printed is None else f"paper {paper}"
    return PageCell(head, counted(count, unit), _sortable(count / unit), small)


def _percent(head: ColumnHead, value: float | None) -> PageCell:
    return PageCell(head, NONE if value is None else f"{value:.1f}", _sortable(value))


def _ours(table: Table, head: ColumnHead, entry: Entry, with_delta: bool) -> PageCell:
    if not entry.key:
        return PageCell(head, NONE)
    small = delta(entry) if with_delta and entry.delta is not None else ""
    opens = identity(table, entry)
    return PageCell(head, ours(entry), _sortable(entry.mean), small, entry.verdict, opens)


def _sortable(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
