"""What the report shows, before it has a form: tables of rows of entries."""

import statistics
from dataclasses import dataclass, field

from ablations.reporting.verdicts import NOT_RUN


@dataclass(frozen=True)
class Entry:
    """One figure of a row: the paper's, and ours over seeds. Percent."""

    key: str  # of the cell that it belongs to, as table6/4; "" in a row that we do not run
    column: str
    paper: float | None = None
    official: float | None = None  # what the authors' README gave later
    values: tuple[float, ...] = ()  # ours, one a seed
    seeds: tuple[int, ...] = ()
    records: tuple[str, ...] = ()  # the runs' ids
    images: int = 0  # that each value was measured on
    noise: float | None = None  # standard deviation of delta, as the verdict takes it
    verdict: str = NOT_RUN

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Over seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def delta(self) -> float | None:
        return self.mean - self.paper if self.mean is not None and self.paper is not None else None


@dataclass(frozen=True)
class Row:
    key: str  # as table6/4
    label: str
    entries: tuple[Entry, ...]
    peer: bool = False  # the paper reports it, we do not run it
    params: int | None = None  # trainable, counted
    params_frozen: int | None = None  # with the tensor that the authors' code registers and never reads
    macs: int | None = None
    paper_params: float | None = None  # millions
    paper_macs: float | None = None  # billions
    notes: tuple[str, ...] = ()

    def entry(self, column: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.column == column), None)


@dataclass(frozen=True)
class Ordering:
    """A pair of rows that the paper orders, and whether our figures do."""

    column: str
    better: str  # the key of the cell that the paper has ahead
    worse: str
    paper: float  # by how much
    ours: float | None
    noise: float | None
    verdict: str


@dataclass(frozen=True)
class Table:
    ablation: str
    number: str  # of the paper, as "6"; "" where it has none
    title: str
    why: str
    scale: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    protocol: str = ""  # "": the scale's own; else in what all its rows differ from it
    orderings: tuple[Ordering, ...] = ()
    notes: tuple[str, ...] = field(default=())  # what a reader must know before believing it

    @property
    def name(self) -> str:
        """As in keys and names of files."""
        return f"table{self.number}" if self.number else self.ablation

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for row in self.rows for entry in row.entries)
