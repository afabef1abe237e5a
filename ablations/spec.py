"""What an ablation is: rows of a table, each a few settings, and what the paper reports for it.

A file of this folder, or of `ablations/` in the working directory, that defines `ABLATION = Ablation(…)` is
an ablation; its name is the file's, as in `python pipeline/launch.py ablation=inner_heads`. Nothing here
needs torch.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import ablations
from ablations import later
from ablations.reporting.judging.verdicts import judge_range
from pipeline.config.identity import science
from pipeline.config.overrides import compose
from pipeline.config.run import RunConfig
from pipeline.config.typed import flattened
from pipeline.errors import UserError, unknown_name
from pipeline.launching.plan import PlannedRun, RequestedRun
from pipeline.runs import records

ALL = "all"
ANCHORS = "anchors"  # trains nothing: `reporting/anchors.py`
GROUPS = {"controls": ("control",)}  # that train; the report makes the others from what is stored
NO_ABLATIONS = ("spec", "report", "reporting", "later")
NAMES_OF_CELLS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


@dataclass(frozen=True)
class Cell:
    """A row of a table that we run."""

    name: str
    overrides: tuple[str, ...] = ()
    label: str = ""  # as the paper prints it
    # Columns of results as printed: top1, top5 in percent; official_top1 and official_top5 are the later ones
    # of the authors; `Ablation.later` says where they stand.
    paper: Mapping[str, float] = field(default_factory=dict)
    starts_from: tuple[str, ...] | None = None  # the overrides of the run whose weights it goes on with
    within: tuple[float, float] | None = None  # where top-1 must lie, where no paper says it
    only: str = ""  # the one scale at which it is run
    column: str = ""  # where several cells share a row, and so a label: the column that its top-1 stands in


@dataclass(frozen=True)
class Peer:
    """A row that the paper reports and we do not run."""

    label: str
    paper: Mapping[str, float]


@dataclass(frozen=True)
class Pair:
    """Two rows to be compared in a column."""

    column: str
    ahead: str  # the cell that the paper has ahead, or names first
    behind: str
    paper: float | None  # by how much; None: it does not print both


@dataclass(frozen=True)
class Ablation:
    table: str  # of the paper, as "6"; "" where it has none
    title: str
    why: str
    varies: tuple[str, ...]  # settings or sections; cells may differ in nothing else
    rows: tuple[Cell | Peer, ...]  # in the paper's order
    base: tuple[str, ...] = ()  # what all cells set
    follows: tuple[str, ...] = ()  # settings that must change with those varied; `why` says why
    seeds: tuple[int, ...] = ()  # where nobody names others; none: that of the settings
    pairs: tuple[tuple[str, str], ...] = ()  # of cells, to be compared; none: all that the paper prints
    later: str = ""  # where the later figures of its cells stand

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(row for row in self.rows if isinstance(row, Cell))

    def cell(self, name: str) -> Cell:
        for cell in self.cells:
            if cell.name == name:
                return cell
        raise unknown_name("cell", name, [cell.name for cell in self.cells])

    def at(self, scale: str) -> "Ablation":
        """With the cells of that scale."""
        rows = tuple(row for row in self.rows if isinstance(row, Peer) or row.only in ("", scale))
        left = {row.name for row in rows if isinstance(row, Cell)}
        return dataclasses.replace(
            self, rows=rows, pairs=tuple(pair for pair in self.pairs if left.issuperset(pair))
        )

    def pairs_of(self, columns: Sequence[str]) -> Iterator[Pair]:
        """In the first column all pairs, in the others those that the paper prints."""
        for column in columns:
            cells = [cell for cell in self.cells if (cell.column or column) == column]
            named = [(self.cell(one), self.cell(other)) for one, other in self.pairs]
            for one, other in named or combinations(cells, 2):
                first, second = (cell.paper.get("top1" if cell.column else column) for cell in (one, other))
                if first is not None and second is not None:
                    ahead, behind = (one, other) if first >= second else (other, one)
                    yield Pair(column, ahead.name, behind.name, round(abs(first - second), 6))
                elif named and column == columns[0]:
                    yield Pair(column, one.name, other.name, None)


def names() -> list[str]:
    return list(_modules())


def _modules() -> dict[str, str]:
    """By name: ours, those of `later/`, and the user's own in the working directory."""
    own = Path.cwd() / "ablations"
    if own.is_dir() and str(own.resolve()) not in {str(Path(each).resolve()) for each in ablations.__path__}:
        ablations.__path__.append(str(own))
    found = [
        module.name
        for package in (ablations, later)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]
    return {short: name for name in found if (short := name.rpartition(".")[2]) not in NO_ABLATIONS}


def load(name: str) -> dict[str, Ablation]:
    """The ablation of that name, those of a group, or all of them."""
    groups = GROUPS | {ALL: tuple(names())}
    if name not in groups and name not in names():
        raise unknown_name("ablation", name, [*names(), *groups, ANCHORS])
    return {each: _load(each) for each in groups.get(name, (name,))}


def composed(ablation: Ablation, cell: Cell, overrides: Sequence[str] = ()) -> RunConfig:
    """A cell's config; the user's overrides hold for every cell and may not touch what the ablation sets."""
    own = {text.partition("=")[0] for each in ablation.cells for text in each.overrides}
    for text in overrides:
        key = text.partition("=")[0]
        if key in own or key in ablation.varies + ablation.follows:
            raise UserError(f"{key} is for this ablation to set ({', '.join(ablation.varies)} varies)")
    return compose([*ablation.base, *overrides, *cell.overrides])


def origin(ablation: Ablation, cell: Cell, overrides: Sequence[str] = ()) -> RunConfig | None:
    """The config of the run that a cell starts from."""
    if cell.starts_from is None:
        return None
    return compose([*ablation.base, *overrides, *cell.starts_from])


def requested_runs(
    name: str,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (),
    cells: Sequence[str] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> list[RequestedRun]:
    """What the ablation of that name asks for, or all of them: each cell, or those named, with each seed.

    `counts`: by ablation and cell, how many seeds it has instead, from 0 on.
    """
    loaded = load(name)
    known = list(dict.fromkeys(cell.name for ablation in loaded.values() for cell in ablation.cells))
    for asked in cells:
        if asked not in known:
            raise unknown_name("cell", asked, known)
    found = []
    for each, whole in loaded.items():
        ablation = whole.at(compose([*whole.base, *overrides]).scale)
        check(each, ablation, overrides)
        chosen = [cell for cell in ablation.cells if not cells or cell.name in cells]
        pairs = [(composed(ablation, cell, overrides), origin(ablation, cell, overrides)) for cell in chosen]
        own = {cell.name: range(counts[each][cell.name]) for cell in chosen} if counts else {}
        for seed in sorted(set().union(*own.values())) if own else seeds or ablation.seeds or (None,):
            for cell, (config, start) in zip(chosen, pairs, strict=True):
                if own and seed not in own[cell.name]:
                    continue
                found.append(
                    RequestedRun(seeded(config, seed), each, cell.name, start and seeded(start, seed))
                )
    if not found:
        raise UserError(f"ablation={name} has no cell at this scale; --help lists the ablations")
    return found


def seeded(config: RunConfig, seed: int | None) -> RunConfig:
    """With another seed; None leaves it."""
    return config if seed is None else dataclasses.replace(config, seed=seed)


def expectations(runs: Iterable[PlannedRun]) -> Iterator[str]:
    """A line for each finished run whose cell says where its top-1 must lie."""
    for run in runs:
        for ablation, _, name in (label.partition("/") for label in run.labels):
            cell = load(ablation)[ablation].cell(name)
            path = records.record_path(run.config.paths.records, run.id)
            if cell.within and path.exists():
                top1, (low, high) = records.read(path).best.top1, cell.within
                yield (
                    f"{ablation}/{name}, {cell.label}: top-1 {top1:.2f} %, "
                    f"{judge_range([top1], cell.within)} ({low:g} to {high:g})"
                )


def check(name: str, ablation: Ablation, overrides: Sequence[str] = ()) -> None:
    """Refuse cells that differ in settings other than those that the ablation varies."""
    for cell in ablation.cells:
        if not cell.name or not set(cell.name) <= NAMES_OF_CELLS:
            raise UserError(f"ablation {name}: cell {cell.name!r} must be named in a–z, 0–9, _ and -")
    if len({cell.name for cell in ablation.cells}) < len(ablation.cells):
        raise UserError(f"ablation {name}: two cells have the same name")
    allowed = ablation.varies + ablation.follows
    settings = {
        cell.name: dict(flattened(science(composed(ablation, cell, overrides)))) for cell in ablation.cells
    }
    first = next(iter(settings), "")
    for other in settings:
        wrong = [key for key in differing(settings[first], settings[other]) if not covered(key, allowed)]
        if wrong:
            raise UserError(
                f"ablation {name}: cells {first} and {other} differ in {', '.join(wrong)} too, but only "
                f"{', '.join(allowed)} may vary"
            )


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings, flattened, in which two runs differ."""
    missing = object()
    return [
        key for key in sorted(one.keys() | other.keys()) if one.get(key, missing) != other.get(key, missing)
    ]


def covered(key: str, parts: Sequence[str]) -> bool:
    """Whether a setting is one of the parts, or lies in a section that is."""
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def _load(name: str) -> Ablation:
    ablation = getattr(importlib.import_module(_modules()[name]), "ABLATION", None)
    if not isinstance(ablation, Ablation):
        raise UserError(f"ablations/{name}.py says no ABLATION = Ablation(…)")
    return ablation
