"""What gap a table can show with so many seeds, and how many seeds its printed gaps need."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from ablations.reporting.judging.difference import LEVEL, POWER, difference
from ablations.reporting.judging.noise import ASSUMED_IMAGES, ASSUMED_SEEDS, evaluation_noise
from ablations.reporting.tables import COLUMNS
from ablations.spec import Ablation, Pair
from pipeline.data.packing.sources.source import TABLE_2

MOST_SEEDS = 50  # that are looked at
REACH = 10  # a row; gaps that need more are left out of `seeds=auto`
TYPICAL = 81.3  # percent, where the paper prints none: TNT-S on ImageNet
OF_COLUMNS = {"top1": "imagenet", "top5": "imagenet"}  # others have the name of their data


@dataclass(frozen=True)
class ColumnPlan:
    """A column of a table at the paper's scale, with the noise that is assumed before anything was run."""

    column: str
    pairs: tuple[Pair, ...]  # those of the column
    tests: int  # those of the table, for which each is corrected
    cells: tuple[str, ...]
    s: float  # between seeds
    images: float  # τ/√N

    def gap(self, one: int, other: int, freedom: float, power: float = POWER) -> float:
        """The least that is found between cells of so many seeds."""
        found = difference(0.0, self.s**2 * (1 / one + 1 / other), freedom or math.inf, self.images**2)
        return found.could_see(LEVEL / self.tests, power)

    def could_see(self, seeds: int, power: float = POWER) -> float:
        """With as many seeds in every row; with a single one, s is taken as known."""
        return self.gap(seeds, seeds, len(self.cells) * (seeds - 1), power)

    def seeds_for(self, gap: float, power: float = POWER) -> int | None:
        """None where more seeds than anybody trains are too few."""
        return next((n for n in range(1, MOST_SEEDS + 1) if self.could_see(n, power) <= gap), None)

    def seeds(self, power: float) -> dict[str, int]:
        """Of each cell, so that each gap within reach is found: one by one where a further seed helps most.

        So a row that many are compared with gets more.
        """
        wanted = [pair for pair in self.pairs if pair.paper and self.within_reach(pair.paper, power)]
        if all(self.could_see(1, power) <= (pair.paper or 0) for pair in wanted):
            return dict.fromkeys(self.cells, 1)
        chosen = dict.fromkeys(self.cells, 2)

        def lacking(seeds: Mapping[str, int]) -> float:
            freedom = sum(seeds.values()) - len(seeds)
            gaps = (self.gap(seeds[pair.ahead], seeds[pair.behind], freedom, power) for pair in wanted)
            return sum(max(0.0, gap - (pair.paper or 0)) for gap, pair in zip(gaps, wanted, strict=True))

        while lacking(chosen) > 0:
            best = min(self.cells, key=lambda cell: lacking(chosen | {cell: chosen[cell] + 1}))
            chosen[best] += 1
        return chosen

    def within_reach(self, gap: float, power: float) -> bool:
        return self.could_see(REACH, power) <= gap


def plans(ablation: Ablation) -> list[ColumnPlan]:
    """At the paper's scale: one for each column that has pairs."""
    columns = list(dict.fromkeys(cell.column for cell in ablation.cells if cell.column)) or ["top1", "top5"]
    pairs = list(ablation.pairs_of(columns))
    found = []
    for column in columns:
        own = tuple(pair for pair in pairs if pair.column == column)
        cells = [cell for cell in ablation.cells if (cell.column or column) == column]
        printed = [cell.paper.get("top1" if cell.column else column) for cell in cells]
        percent = statistics.fmean(filter(None, printed)) if any(printed) else TYPICAL
        images = TABLE_2[OF_COLUMNS.get(column, column)].samples["validation"]
        noise = evaluation_noise(percent, images)
        if own:
            s, tau = ASSUMED_SEEDS * noise, ASSUMED_IMAGES * noise
            found.append(ColumnPlan(column, own, len(pairs), tuple(cell.name for cell in cells), s, tau))
    return found


def sentence(plan: ColumnPlan, seeds: int) -> str:
    """What so many seeds show, and what the paper's gaps need."""
    gaps = sorted({pair.paper for pair in plan.pairs if pair.paper})
    needed = [f"{plan.seeds_for(gap) or f'more than {MOST_SEEDS}'} for {gap:.1f}" for gap in gaps]
    return (
        f"{COLUMNS.get(plan.column, plan.column)}: {seeds} seed{'s' * (seeds > 1)} a row could see a gap of "
        f"{plan.could_see(seeds):.2f} points ({plan.tests} pairs, corrected; s assumed)"
        + (f"; seeds that the paper's gaps need: {', '.join(needed)}" if needed else "")
    )


def lines(ablations: Mapping[str, Ablation], seeds: int, power: float | None = None) -> list[str]:
    """On each column of the tables; where the seeds follow from a power, which gaps they leave out."""
    found = []
    for name, ablation in ablations.items():
        for plan in plans(ablation):
            said = sentence(plan, seeds) if power is None else out_of_reach(plan, power)
            found += [f"{name}, {said}"] if said else []
    return found


def seeds_of(ablation: Ablation, power: float) -> dict[str, int]:
    """How many each cell needs, so that every gap of the paper's within reach is found with that power."""
    needed = {cell.name: 1 for cell in ablation.cells}
    for plan in plans(ablation):
        for cell, seeds in plan.seeds(power).items():
            needed[cell] = max(needed[cell], seeds)
    return needed


def out_of_reach(plan: ColumnPlan, power: float) -> str:
    """The gaps that `seeds_of` leaves out, or nothing."""
    gaps = sorted({pair.paper for pair in plan.pairs if pair.paper})
    far = [f"{gap:.1f}" for gap in gaps if not plan.within_reach(gap, power)]
    if not far:
        return ""
    name = COLUMNS.get(plan.column, plan.column)
    return f"{name}: gaps of {', '.join(far)} need more than {REACH} seeds a row, and are left out"
