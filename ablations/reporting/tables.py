"""The tables of the report before they are printed or drawn, and how their names and numbers are written."""

import hashlib
import statistics
from dataclasses import dataclass, field

from ablations.reporting.judging.verdicts import INCONCLUSIVE, NOT_RUN

NONE = "–"
LONGEST = 100  # characters of a protocol in a file's name
COLUMNS = {
    "top1": "top-1",
    "top5": "top-5",
    "imagenet": "ImageNet",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "flowers": "Flowers",
    "pets": "Pets",
}


@dataclass(frozen=True)
class Entry:
    """One number of a row, in percent: the paper's, and ours over seeds."""

    key: str  # of the cell that it belongs to, as table6/4; "" in a row that we do not run
    column: str
    paper: float | None = None
    official: float | None = None  # the authors' later figure; `Ablation.later` says where
    values: tuple[float, ...] = ()  # ours, one a seed
    seeds: tuple[int, ...] = ()
    records: tuple[str, ...] = ()  # the runs' ids
    audited: int = 0  # of them, replayed in part with the same losses
    images: int = 0  # that each value was measured on
    half: float | None = None  # of the 95 % interval of our mean, on these images
    delta_half: float | None = None  # of that of delta
    could_see: float | None = None  # the least difference from the paper that would be found in 80 % of cases
    source: str = ""  # of the noise between seeds, if not these runs
    verdict: str = NOT_RUN
    later_half: float | None = None  # as delta_half, of the difference from the later figure
    later_verdict: str = NOT_RUN  # on it

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

    @property
    def later_delta(self) -> float | None:
        return self.mean - self.official if self.mean is not None and self.official is not None else None


@dataclass(frozen=True)
class TableRow:
    key: str  # as table6/4
    label: str
    entries: tuple[Entry, ...]
    peer: bool = False  # the paper reports it, we do not run it
    params: int | None = None  # trainable, counted
    params_frozen: int | None = None  # with the tensor that the authors' code registers and never reads
    macs: int | None = None
    paper_params: float | None = None  # millions
    paper_macs: float | None = None  # billions
    speed: float | None = None  # images/s of one device in training, the median of its runs
    device: str = ""  # of all of them; "" where they differ
    notes: tuple[str, ...] = ()

    def entry(self, column: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.column == column), None)


@dataclass(frozen=True)
class Effect:
    """A pair of rows that the table is about: by how much the first is ahead, on the same images."""

    column: str
    ahead: str  # the cell's key
    behind: str
    paper: float | None  # by how much; 0: called equal; None: the paper has no such pair
    ours: float | None = None
    half: float | None = None  # of the 95 % interval of ours
    p: float | None = None  # corrected for all pairs of the table
    could_see: float | None = None  # the least effect that would be found in 80 % of cases, so corrected
    chance: float | None = None  # that further runs decide it, where runs are added until it is decided
    source: str = ""  # of the noise between seeds, if not these runs
    verdict: str = NOT_RUN


@dataclass(frozen=True)
class Check:
    """Something that is known, and whether the runs and the judge show it."""

    label: str  # of the row
    what: str
    expected: str
    found: str
    verdict: str
    difference: tuple[float, float, float] | None = None  # found, half its interval, what there is


@dataclass(frozen=True)
class Table:
    ablation: str
    number: str  # of the paper, as "6"; "" where it has none
    title: str
    why: str
    scale: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    protocol: str = ""  # "": the scale's own; else in what all its rows differ from it
    effects: tuple[Effect, ...] = ()
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = field(default=())  # what else may have moved the numbers

    @property
    def name(self) -> str:
        """As in keys and names of files."""
        return f"table{self.number}" if self.number else self.ablation

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for row in self.rows for entry in row.entries)


def is_papers_table(table: Table) -> bool:
    return table.scale == "paper" and not table.protocol


def heading(table: Table) -> str:
    number = f"Table {table.number}. " if table.number else ""
    protocol = f" [{table.protocol}]" if table.protocol else ""
    scale = "" if table.scale == "paper" else f" (scale={table.scale})"
    return f"{number}{table.title}{scale}{protocol}"


def file_name(table: Table) -> str:
    """A protocol that a file's name cannot hold is shortened and gets a hash."""
    kept = "".join(letter if letter.isalnum() or letter in "._=-" else "-" for letter in table.protocol)
    if len(kept) > LONGEST or kept != table.protocol.replace(" ", "-"):
        kept = f"{kept[:LONGEST]}-{hashlib.sha256(table.protocol.encode()).hexdigest()[:8]}"
    return f"{table.name}--{kept}" if kept else table.name


def counted(count: int | None, unit: float) -> str:
    return NONE if count is None else f"{count / unit:.{2 if count >= unit else 4}f}"


def ours(entry: Entry) -> str:
    if entry.mean is None:
        return NONE
    spread = "" if entry.half is None else f" ± {entry.half:.2f}"
    audited = f", {entry.audited} audited" if entry.audited else ""
    return f"{entry.mean:.2f}{spread} (n={entry.n}{audited})"


def delta(entry: Entry) -> str:
    return with_half(entry.delta, entry.delta_half)


def with_half(value: float | None, half: float | None) -> str:
    if value is None:
        return NONE
    signed = f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0: no −0.00
    return signed if half is None else f"{signed} ± {half:.2f}"


def said_of_both(entry: Entry) -> str:
    """The verdict beside the paper's figure, and that beside the later one."""
    return said(entry) + ("" if entry.later_verdict == NOT_RUN else f"; later: {entry.later_verdict}")


def said(one: Entry | Effect) -> str:
    """The verdict, with what a reader must know before believing it."""
    seen = one.verdict == INCONCLUSIVE and one.could_see is not None
    more = [f"could have seen {one.could_see:.2f}" if seen else "", one.source if one.could_see else ""]
    return f"{one.verdict} ({'; '.join(filter(None, more))})" if any(more) else one.verdict
