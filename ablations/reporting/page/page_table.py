"""A table as the page shows it: each cell with its text, what it sorts by, and what opens from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ablations.reporting import verdicts
from ablations.reporting.tables import Entry, Row, Table
from ablations.reporting.text.grid import COLUMNS, NONE, counted, delta, file_name, grid, heading, ours

NARROW = 2  # a table of more columns of results has no room for one of differences beside each
TONES = (
    dict.fromkeys(verdicts.GOOD, "good")
    | dict.fromkeys(verdicts.FAIR, "fair")
    | dict.fromkeys(verdicts.BAD, "bad")
    | {verdicts.MEASURED: "plain", verdicts.REPORTED: "quiet", verdicts.NOT_RUN: "quiet"}
)


@dataclass(frozen=True)
class Head:
    text: str
    group: str = ""  # the result that it belongs to, where there are several


@dataclass(frozen=True)
class Shown:
    head: Head
    text: str
    sort: str = ""  # a number or a text; "" goes last
    small: str = ""  # beside the text: what the paper prints, or a difference
    verdict: str = ""
    opens: str = ""  # the id of what tells where it comes from

    @property
    def tone(self) -> str:
        return TONES.get(self.verdict, "quiet")


@dataclass(frozen=True)
class Line:
    label: str
    peer: bool
    cells: tuple[Shown, ...]

    @property
    def verdicts(self) -> list[str]:
        return sorted({cell.verdict for cell in self.cells if cell.verdict})


@dataclass(frozen=True)
class Sheet:
    table: Table
    name: str
    heading: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]  # beside the table's own notes, which a reader must know first

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


def sheet(table: Table) -> Sheet:
    """Columns in which nothing stands are left out."""
    shown = [column for column in table.columns if column == table.columns[0] or _says(table, column)]
    lines = [(row, tuple(_cells(table, row, shown))) for row in table.rows]
    kept = [
        place
        for place, head in enumerate(cell.head for cell in lines[0][1])
        if head.text == "ours" or any(cells[place].text != NONE for _, cells in lines)
    ]
    return Sheet(
        table=table,
        name=file_name(table),
        heading=heading(table),
        heads=tuple(lines[0][1][place].head for place in kept),
        lines=tuple(Line(row.label, row.peer, tuple(cells[place] for place in kept)) for row, cells in lines),
        remarks=grid(table).notes[len(table.notes) :],
    )


def identity(table: Table, entry: Entry) -> str:
    """Of a cell on the page, as table6/4; tables of other protocols have the same cells."""
    return f"{file_name(table)}/{entry.key.partition('/')[2]}"


def _says(table: Table, column: str) -> bool:
    """Whether the paper prints it, or we have figures of a set of its own."""
    entries = [entry for entry in table.entries if entry.column == column]
    return any(entry.paper is not None for entry in entries) or (column != "top5" and bool(entries))


def _cells(table: Table, row: Row, columns: Sequence[str]) -> Iterator[Shown]:
    yield _size(Head("params, M"), row.params, row.paper_params, 1e6)
    yield _size(Head("MACs, G"), row.macs, row.paper_macs, 1e9)
    for column in columns:
        group = COLUMNS.get(column, column)
        entry = row.entry(column) or Entry("", column, verdict="")
        yield _percent(Head("paper", group), entry.paper)
        yield _percent(Head("later", group), entry.official)
        yield _ours(table, Head("ours", group), entry, len(columns) > NARROW)
        if len(columns) <= NARROW:
            yield Shown(Head("Δ", group), delta(entry), _sortable(entry.delta))


def _size(head: Head, count: int | None, printed: float | None, unit: float) -> Shown:
    paper = NONE if printed is None else f"{printed:.1f}"
    if count is None:
        return Shown(head, paper, _sortable(printed), "as reported" if printed is not None else "")
    small = "" if printed is None else f"paper {paper}"
    return Shown(head, counted(count, unit), _sortable(count / unit), small)


def _percent(head: Head, value: float | None) -> Shown:
    return Shown(head, NONE if value is None else f"{value:.1f}", _sortable(value))


def _ours(table: Table, head: Head, entry: Entry, with_delta: bool) -> Shown:
    if not entry.key:
        return Shown(head, NONE)
    small = delta(entry) if with_delta and entry.delta is not None else ""
    opens = identity(table, entry)
    return Shown(head, ours(entry), _sortable(entry.mean), small, entry.verdict, opens)


def _sortable(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
