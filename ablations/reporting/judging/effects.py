"""The pairs of rows that a table is about, each as a difference of two methods on the same images."""

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean

from ablations.reporting.judging.difference import LEVEL, Difference, difference
from ablations.reporting.judging.noise import RightCounts, SeedNoise, evaluation_noise, image_noise
from ablations.reporting.judging.verdicts import Question, judge_pairs
from ablations.reporting.tables import Effect, Entry, Table, is_papers_table
from ablations.spec import Ablation
from pipeline.runs.records import Record

ROUNDING = 0.1**2 / 12  # the variance of what the paper leaves out by printing tenths
CellRecords = Mapping[str, Sequence[Record]]  # the records of each cell by its name, one a seed


def effects(
    table: Table, ablation: Ablation, held: CellRecords, noises: Mapping[str, SeedNoise]
) -> list[Effect]:
    """In the table's order; judged where both rows were run, and corrected for all pairs that were."""
    entries = {(entry.column, entry.key): entry for entry in table.entries}
    right = {
        f"{table.name}/{name}": RightCounts.of([record.right_images() for record in kept])
        for name, records in held.items()
        if (kept := [record for record in records if record.right])
    }
    found: list[Effect] = []
    questions: dict[int, Question] = {}  # by place among those found
    for pair in ablation.pairs_of(table.columns):
        keys = f"{table.name}/{pair.ahead}", f"{table.name}/{pair.behind}"
        effect = Effect(pair.column, *keys, pair.paper if is_papers_table(table) else None)
        one, other = (entries[pair.column, key] for key in keys)
        if one.values and other.values:
            noise = noises[pair.column]
            questions[len(found)] = _question(one, other, noise, right, effect.paper)
            effect = dataclasses.replace(effect, source=noise.source(one.n, other.n))
        found.append(effect)
    judged = judge_pairs(list(questions.values()))
    for (place, question), (verdict, p) in zip(questions.items(), judged, strict=True):
        gap = question.difference
        could_see = gap.could_see(LEVEL / len(questions))
        found[place] = dataclasses.replace(
            found[place], ours=gap.value, half=gap.half, p=p, could_see=could_see, verdict=verdict
        )
    return found


def method_gap(
    one: Sequence[float], other: Sequence[float], noise: SeedNoise, of_images: float
) -> Difference:
    """Of the accuracies of two cells' runs on the same images."""
    runs = noise.s**2 * (1 / len(one) + 1 / len(other))
    return difference(fmean(one) - fmean(other), runs, noise.freedom, of_images**2)


def figure_gap(values: Sequence[float], printed: float, noise: SeedNoise) -> Difference:
    """Of a cell's runs and a printed figure, which is one more run on these images, rounded."""
    return difference(fmean(values) - printed, noise.s**2 * (1 + 1 / len(values)), noise.freedom, ROUNDING)


def _question(
    one: Entry, other: Entry, noise: SeedNoise, right: Mapping[str, RightCounts], paper: float | None
) -> Question:
    evaluation = evaluation_noise(fmean([*one.values, *other.values]), min(one.images, other.images))
    # Records say of which images the first answer was right, not whether one of five was.
    known = {} if one.column == "top5" else right
    of_images = image_noise(known.get(one.key), known.get(other.key), evaluation)
    return Question(method_gap(one.values, other.values, noise, of_images), paper)
