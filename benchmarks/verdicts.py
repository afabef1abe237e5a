"""How often the judge is right: laboratories that repeat Table 6, simulated image by image.

    python -m benchmarks.verdicts --laboratories 1000

In each, the cells of a table are trained on some seeds. Whether a run gets an image right depends on the
image, on what the cell's method makes of it, on the run as a whole, and on chance. Beside today's judge
stands the rule before it: 2e and 2σ, with the noise of the images counted in full.
"""

import argparse
import dataclasses
import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import numpy as np
from scipy.special import ndtri

from ablations.reporting.batches import pair_states
from ablations.reporting.judging import sequential
from ablations.reporting.judging.difference import LEVEL, Difference
from ablations.reporting.judging.effects import column_noise, effects, figure_gap, method_gap
from ablations.reporting.judging.noise import (
    RightCounts,
    SeedNoise,
    evaluation_noise,
    image_noise,
    seed_noise,
)
from ablations.reporting.judging.verdicts import (
    CONFIRMED,
    DIFFERS,
    EQUIVALENT,
    INCONCLUSIVE,
    OPPOSITE,
    Question,
    judge_figure,
    judge_pairs,
)
from ablations.reporting.tables import Effect, Table
from ablations.spec import load
from pipeline.runs.records import Measures, Record

HEADS = load("inner_heads")["inner_heads"]
IMAGES = 50_000
PERCENT = 81.3
PRINTED = (81.0, 81.3, 81.3, 81.1)  # Table 6
# Of a standard normal variable: an image is right where it exceeds -THRESHOLD. They give 81.3 % right, two
# runs of a cell that disagree on 7.5 % of the images, τ² = 0.010, and s = 0.12 points.
THRESHOLD, SLOPE = 0.88902, 0.26871  # SLOPE: of the share that is right, by the threshold
OF_IMAGE, OF_METHOD, OF_RUN = 0.921622, 0.017322, 0.061056  # variances; their sum is 1
RUN_SHIFT = 0.0030912  # standard deviation, of all images of a run together

Cell = Sequence[np.ndarray]  # for each run, which images were right


def laboratory(
    draws: np.random.Generator, gaps: Sequence[float], seeds: int, images: int = IMAGES
) -> list[Cell]:
    """The answers of its cells; `gaps` in points, of each cell to 81.3 %.

    All laboratories, and the paper, have the same images: their difficulty is no draw, what a method makes of
    them is.
    """
    image = math.sqrt(OF_IMAGE) * ndtri((np.arange(images, dtype=np.float32) + 0.5) / images)
    cells = []
    for gap in gaps:
        method = image + math.sqrt(OF_METHOD) * draws.standard_normal(images, np.float32)
        level = THRESHOLD + gap / 100 / SLOPE
        shifts = level + RUN_SHIFT * draws.standard_normal(seeds)
        chance = math.sqrt(OF_RUN) * draws.standard_normal((seeds, images), np.float32)
        cells.append([method + chance[run] > -shifts[run] for run in range(seeds)])
    return cells


def questions(cells: Sequence[Cell], printed: Sequence[float]) -> list[Question]:
    """All pairs of the cells, as the report asks them: which the paper has ahead, and by how much."""
    values, noise = accuracies(cells)
    counts = [RightCounts.of(cell) for cell in cells]
    evaluation = evaluation_noise(PERCENT, counts[0].right.size)
    found = []
    for pair in combinations(range(len(cells)), 2):
        ahead, behind = sorted(pair, key=lambda cell: -printed[cell])
        of_images = image_noise(counts[ahead], counts[behind], evaluation)
        gap = method_gap(values[ahead], values[behind], noise, of_images)
        found.append(Question(gap, round(printed[ahead] - printed[behind], 6)))
    return found


def figures(cells: Sequence[Cell], printed: Sequence[float]) -> list[str]:
    """The judge's word on each figure beside the printed one."""
    values, noise = accuracies(cells)
    return [judge_figure(figure_gap(*each, noise)) for each in zip(values, printed, strict=True)]


def accuracies(cells: Sequence[Cell]) -> tuple[list[list[float]], SeedNoise]:
    values = [[100 * float(run.mean()) for run in cell] for cell in cells]
    images = cells[0][0].size
    return values, seed_noise(values, evaluation_noise(PERCENT, images), images)


def first_rule(cells: Sequence[Cell], printed: Sequence[float]) -> tuple[list[str], list[str]]:
    """What the rule before would have said: on each figure, and on each pair that the paper orders."""
    values, _ = accuracies(cells)
    evaluation = evaluation_noise(PERCENT, cells[0][0].size)
    freedom = sum(len(each) - 1 for each in values)
    squares = sum(statistics.variance(each) * (len(each) - 1) for each in values if len(each) > 1)
    run = math.sqrt((squares + evaluation**2) / (freedom + 1))

    def sigma(a: int, b: int) -> float:
        return math.sqrt(evaluation**2 + run**2 * (1 / a + 1 / b))

    of_figures, of_pairs = [], []
    for each, paper in zip(values, printed, strict=True):
        gap = abs(statistics.fmean(each) - paper)
        beyond = "within noise" if gap <= 2 * sigma(len(each), 1) else "differs"
        of_figures.append("reproduced" if gap <= 2 * evaluation else beyond)
    for pair in combinations(range(len(cells)), 2):
        ahead, behind = sorted(pair, key=lambda cell: -printed[cell])
        if printed[ahead] > printed[behind]:
            gap = statistics.fmean(values[ahead]) - statistics.fmean(values[behind])
            if abs(gap) <= 2 * sigma(len(values[ahead]), len(values[behind])):
                of_pairs.append("not supported")
            else:
                of_pairs.append("supported" if gap > 0 else "contradicted")
    return of_figures, of_pairs


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Its p: of two runs, by the images on which they disagree."""
    error = 100 * math.sqrt((one ^ other).mean() / one.size)
    return Difference(100 * (float(one.mean()) - float(other.mean())), error, math.inf).p()


def rates(gaps: Sequence[float], seeds: int, laboratories: int) -> dict[str, float]:
    """Percent of laboratories, or of their pairs, of which each name holds."""
    draws = np.random.default_rng([0, seeds])
    found: Counter[str] = Counter()
    for _ in range(laboratories):
        cells = laboratory(draws, gaps, seeds)
        asked = questions(cells, PRINTED)
        words = [word for word, _ in judge_pairs(asked)]
        ordered = [word for word, each in zip(words, asked, strict=True) if each.paper]
        alone = [each.difference.p() < LEVEL for each in asked if each.paper]
        before, pairs_before = first_rule(cells, PRINTED)
        now = figures(cells, PRINTED)
        found["before: all figures reproduced"] += set(before) == {"reproduced"}
        found["now: all figures equivalent"] += set(now) == {EQUIVALENT}
        found["now: some figure differs"] += DIFFERS in now
        found["before: of the pairs, supported"] += pairs_before.count("supported") / len(ordered)
        found["now: of the pairs, confirmed"] += ordered.count(CONFIRMED) / len(ordered)
        found["before: some pair supported or contradicted"] += set(pairs_before) != {"not supported"}
        found["now: some pair confirmed or opposite"] += set(ordered) != {INCONCLUSIVE}
        found["now: of the pairs, p < 0.05 uncorrected"] += statistics.fmean(alone)
        found["now: the equal pair equivalent"] += EQUIVALENT in words
        found["McNemar's test of two runs, p < 0.05"] += statistics.fmean(
            mcnemar(one[0], other[0]) < LEVEL for one, other in combinations(cells, 2)
        )
    return {name: 100 * count / laboratories for name, count in found.items()}


def power(gap: float, seeds: int, laboratories: int) -> tuple[float, float]:
    """Percent of laboratories that find one cell of four ahead of another, as it is: before, and now."""
    draws = np.random.default_rng([1, seeds])
    before = now = 0
    for _ in range(laboratories):
        cells = laboratory(draws, (0, -gap, -gap / 2, -gap / 2), seeds)
        first = questions(cells, (2, 1, 0, 0))[0].difference
        now += first.p() < LEVEL and first.value > 0
        before += first_rule(cells, (2, 1, 0, 0))[1][0] == "supported"
    return 100 * before / laboratories, 100 * now / laboratories


@dataclass(frozen=True)
class SimulatedRun:
    """What the judge looks at in a record."""

    seed: int
    answers: np.ndarray
    right: str = "kept"

    @property
    def ended(self) -> str:
        return f"{self.seed:03d}"

    @property
    def best(self) -> Measures:
        top1 = 100 * float(self.answers.mean())
        return Measures(top1, 100.0, 0.0, self.answers.size)

    def right_images(self) -> np.ndarray:
        return self.answers


def until_decided(
    draws: np.random.Generator, gaps: Sequence[float], looked: bool = True, images: int = IMAGES
) -> tuple[list[Effect], int]:
    """Table 6 by `until=decided`: its effects, and how many runs it took, of at most 40.

    `looked=False`: judged at each look as if it were the only one, which is what nobody should do.
    """
    cells = laboratory(draws, gaps, sequential.LAST, images)
    names = [cell.name for cell in HEADS.cells]
    taken = dict.fromkeys(names, min(sequential.SHARES))
    table = Table("inner_heads", "6", "", "", "paper", ("top1",), ())
    decided: dict[tuple[str, str], Effect] = {}
    while True:
        held = {
            name: [cast("Record", SimulatedRun(seed, run)) for seed, run in enumerate(cell[: taken[name]])]
            for name, cell in zip(names, cells, strict=True)
        }
        noise = column_noise([[run.best.top1 for run in runs] for runs in held.values()], images)
        found = effects(table, HEADS, held, {"top1": noise}, looked)
        for each in found:
            if each.verdict != INCONCLUSIVE:
                decided.setdefault((each.ahead, each.behind), each)
        found = [decided.get((each.ahead, each.behind), each) for each in found]
        states = pair_states(dataclasses.replace(table, effects=tuple(found)), held)
        wanted = sequential.wanted({pair.cells: pair.look for pair in states if pair.look})
        if not wanted:
            return found, sum(taken.values())
        taken |= {name: max(taken[name], runs) for name, runs in wanted.items()}


def sequential_rates(gaps: Sequence[float], laboratories: int, looked: bool = True) -> dict[str, float]:
    """Percent of laboratories, or of their pairs, of which each name holds."""
    draws = np.random.default_rng([2, len(gaps)])
    found: Counter[str] = Counter()
    for _ in range(laboratories):
        judged, runs = until_decided(draws, gaps, looked)
        ordered = [each for each in judged if each.paper]
        found["some pair confirmed or opposite"] += any(each.verdict != INCONCLUSIVE for each in ordered)
        found["some pair in the wrong direction"] += any(each.verdict == OPPOSITE for each in ordered)
        found["of the pairs, confirmed"] += statistics.fmean(each.verdict == CONFIRMED for each in ordered)
        found["of gaps of 0.3, confirmed"] += statistics.fmean(
            each.verdict == CONFIRMED for each in ordered if (each.paper or 0) > 0.25
        )
        found["the equal pair equivalent"] += any(each.verdict == EQUIVALENT for each in judged)
        found["runs"] += runs
    return {name: count / laboratories * (1 if name == "runs" else 100) for name, count in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--laboratories", type=int, default=1000)
    count = parser.parse_args().laboratories
    began = time.monotonic()
    true = tuple(value - PERCENT for value in PRINTED)
    for name, gaps in (("no effect at all", (-0.1,) * 4), ("the paper exactly true", true)):
        columns = {seeds: rates(gaps, seeds, count) for seeds in (1, 3, 5)}
        print(f"{name + ', seeds:':52s}" + "".join(f"{seeds:8d}" for seeds in columns))
        for row in columns[1]:
            print(f"  {row:50s}" + "".join(f"{each[row]:8.1f}" for each in columns.values()))
    for name, gaps, looked in (
        ("until=decided, no effect", (-0.1,) * 4, True),
        ("the same, each look judged as if it were the only one", (-0.1,) * 4, False),
        ("until=decided, the paper is exactly true", true, True),
    ):
        print(f"\n{name}")
        for row, value in sequential_rates(gaps, count, looked).items():
            print(f"  {row:50s}{value:8.1f}")
    for gap, seeds in ((0.49, 1), (0.3, 3), (0.33, 3), (0.3, 5), (0.26, 5), (0.2, 10)):
        before, now = power(gap, seeds, count)
        print(f"gap {gap:.2f}, {seeds:2d} seeds: found before {before:5.1f} %, now {now:5.1f} %")
    print(f"{count} laboratories each, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
