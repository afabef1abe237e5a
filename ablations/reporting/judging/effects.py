"""The pairs of rows that a table is about, each as a difference of two methods on the same images."""

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean

from ablations.reporting.judging import sequential
from ablations.reporting.judging.difference import LEVEL, Difference, difference
from ablations.reporting.judging.noise import (
    RightCounts,
    SeedNoise,
    evaluation_noise,
    image_noise,
    seed_noise,
)
from ablations.reporting.judging.verdicts import INCONCLUSIVE, Question, judge_pairs
from ablations.reporting.tables import Effect, Table, is_papers_table
from ablations.spec import Ablation, Pair
from pipeline.runs.records import Record

ROUNDING = 0.1**2 / 12  # the variance of what the paper leaves out by printing tenths
CellRecords = Mapping[str, Sequence[Record]]  # the records of each cell by its name, one a seed


def effects(
    table: Table, ablation: Ablation, held: CellRecords, noises: Mapping[str, SeedNoise], looked: bool
) -> list[Effect]:
    """In the table's order; judged where both rows were run, and corrected for all pairs that were.

    `looked`: runs were added after looks at the results.
    """
    measures = {cell.name: "top1" if cell.column else "" for cell in ablation.cells}
    found: list[Effect] = []
    questions: dict[int, Question] = {}  # by place among those found
    said: dict[int, tuple[SeedNoise, tuple[int, int], float]] = {}
    for pair in ablation.pairs_of(table.columns):
        keys = f"{table.name}/{pair.ahead}", f"{table.name}/{pair.behind}"
        effect = Effect(pair.column, *keys, pair.paper if is_papers_table(table) else None)
        one, other = held.get(pair.ahead, ()), held.get(pair.behind, ())
        if one and other:
            noise, measure = noises[pair.column], measures[pair.ahead] or pair.column
            gap, of_images = _gap(one, other, measure, noise)
            looks = None
            if looked:
                mine = [cell.name for cell in ablation.cells if (cell.column or pair.column) == pair.column]
                looks = [
                    (_look(runs, pair, mine, held, measure), sequential.SHARES[runs])
                    for runs in sequential.looks_taken(len(one), len(other))
                ]
            questions[len(found)] = Question(gap, effect.paper, looks)
            said[len(found)] = noise, (len(one), len(other)), of_images
            effect = dataclasses.replace(effect, source=noise.source(len(one), len(other)))
        found.append(effect)
    judged = judge_pairs(list(questions.values()))
    undecided = sum(verdict == INCONCLUSIVE for verdict, _ in judged)
    for (place, question), (verdict, p) in zip(questions.items(), judged, strict=True):
        gap, share, hope = question.difference, 1.0, None
        if question.looks is not None:
            share = question.looks[-1][1] if question.looks else min(sequential.SHARES.values())
        if question.looks and verdict == INCONCLUSIVE:
            hope = sequential.chance(question, *said[place], undecided)
        could_see = gap.could_see(LEVEL * share / len(questions))
        found[place] = dataclasses.replace(
            found[place],
            ours=gap.value,
            half=gap.half,
            p=p,
            could_see=could_see,
            chance=hope,
            verdict=verdict,
        )
    return found


def column_noise(cells: Sequence[Sequence[float]], images: int) -> SeedNoise:
    """Between seeds, in a column of which some cells were run."""
    percent = fmean(value for values in cells for value in values)
    return seed_noise(cells, evaluation_noise(percent, images), images)


def method_gap(
    one: Sequence[float], other: Sequence[float], noise: SeedNoise, of_images: float
) -> Difference:
    """Of the accuracies of two cells' runs on the same images."""
    runs = noise.s**2 * (1 / len(one) + 1 / len(other))
    return difference(fmean(one) - fmean(other), runs, noise.freedom, of_images**2)


def figure_gap(values: Sequence[float], printed: float, noise: SeedNoise) -> Difference:
    """Of a cell's runs and a printed figure, which is one more run on these images, rounded."""
    return difference(fmean(values) - printed, noise.s**2 * (1 + 1 / len(values)), noise.freedom, ROUNDING)


def _look(runs: int, pair: Pair, cells: Sequence[str], held: CellRecords, measure: str) -> Difference:
    """What was seen of a pair when its rows had so many runs; all cells of its column tell the noise."""
    then = {name: sequential.first(held[name], runs) for name in cells if held.get(name)}
    images = min(record.best.images for records in then.values() for record in records)
    noise = column_noise([_values(records, measure) for records in then.values()], images)
    return _gap(then[pair.ahead], then[pair.behind], measure, noise)[0]


def _gap(
    one: Sequence[Record], other: Sequence[Record], measure: str, noise: SeedNoise
) -> tuple[Difference, float]:
    """Of two cells' runs; and what the images add to it."""
    values = _values(one, measure), _values(other, measure)
    images = min(record.best.images for record in (*one, *other))
    evaluation = evaluation_noise(fmean([*values[0], *values[1]]), images)
    # Records say of which images the first answer was right, not whether one of five was.
    right = (_right(one), _right(other)) if measure == "top1" else (None, None)
    of_images = image_noise(*right, evaluation)
    return method_gap(*values, noise, of_images), of_images


def _values(records: Sequence[Record], measure: str) -> list[float]:
    return [getattr(record.best, measure) for record in records]


def _right(records: Sequence[Record]) -> RightCounts | None:
    kept = [record.right_images() for record in records if record.right]
    return RightCounts.of(kept) if kept else None
